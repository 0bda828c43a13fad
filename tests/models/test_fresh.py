"""A fresh model has the architecture and the words of another one, and weights that depend on the seed alone."""

import pytest
import torch

from skd.data.tasks import TASKS
from skd.errors import ModelError
from skd.models import load_pair
from skd.models.fresh import write_fresh

STUDENT = "builtin:number_words/student"


def weights(directory):
    return torch.cat([parameter.detach().flatten() for parameter in load_pair(None, directory).student.parameters()])


def test_weights_depend_on_the_seed_alone(tmp_path):
    before = torch.random.get_rng_state()
    first = weights(write_fresh(STUDENT, 1, tmp_path / "a"))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(first, weights(write_fresh(STUDENT, 1, tmp_path / "b")))
    assert not torch.equal(first, weights(write_fresh(STUDENT, 2, tmp_path / "a"))), "replaced"


def test_architecture_and_words_are_those_of_the_other(tmp_path):
    fresh, known = load_pair(None, write_fresh(STUDENT, 1, tmp_path / "a")), load_pair(None, STUDENT)
    assert fresh.student.num_parameters() == known.student.num_parameters()
    assert fresh.tokenizer.get_vocab() == known.tokenizer.get_vocab()
    assert fresh.stop_ids == known.stop_ids


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="there is no such directory"):
        write_fresh("./none", 0, tmp_path / "a")


def test_words_of_a_task_replace_those_of_the_model(tmp_path):
    fresh, known = load_pair(None, write_fresh(STUDENT, 1, tmp_path / "a", "sums")), load_pair(None, STUDENT)
    assert set(fresh.tokenizer.get_vocab()) == {"<pad>", "</s>", "<unk>", *TASKS["sums"].words}
    assert fresh.student.get_output_embeddings().weight.shape == (len(TASKS["sums"].words) + 3, 64)
    assert fresh.stop_ids == known.stop_ids

"""Student against teacher: identities, hand-made numbers, plain forwards."""

import math

import numpy as np
import pytest
import torch

from skd.evaluate.run import evaluate_tasks
from skd.evaluate.teacher import BINS, _calibration, _item, fidelity
from skd.evaluate.workload import Choice
from skd.models import load_pair
from skd.types import Prompts
from tests.tiny import save_tiny

PROMPTS = Prompts(
    ids=[[3, 4, 5], [6, 7], [8, 9, 10, 11]],
    sample_ids=[0, 1, 2],
    references=[[12, 13, 1], [14, 1], [15, 16, 17, 1]],
)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [save_tiny(folder / str(seed), "llama", seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def pairs(directories):
    """The same model twice, and two different ones."""
    return load_pair(directories[0], directories[0]), load_pair(directories[0], directories[1])


def test_a_model_is_its_own_perfect_copy(pairs):
    scores = fidelity(pairs[0], PROMPTS)
    assert abs(scores["forward_kl"].value) < 1e-6
    assert scores["top1_agreement"].value == 1.0


@torch.no_grad()
def test_divergence_and_agreement_are_those_of_plain_forwards(pairs):
    pair, kl, agreed, tokens = pairs[1], 0.0, 0, 0
    for ids, reference in zip(PROMPTS.ids, PROMPTS.references, strict=True):
        whole = torch.tensor([[*ids, *reference]])
        student, teacher = (
            model(input_ids=whole).logits[0, len(ids) - 1 : -1, : pair.vocab_size].double().log_softmax(-1)
            for model in (pair.student, pair.teacher)
        )
        kl += float((teacher.exp() * (teacher - student)).sum())
        agreed += int((student.argmax(-1) == teacher.argmax(-1)).sum())
        tokens += len(reference)
    scores = fidelity(pair, PROMPTS)
    assert scores["forward_kl"].value == pytest.approx(kl / tokens, rel=1e-4)
    assert scores["forward_kl"].value > 0.1
    assert scores["top1_agreement"].value == agreed / tokens
    assert scores["forward_kl"].interval_95[0] <= scores["forward_kl"].value <= scores["forward_kl"].interval_95[1]


def test_one_item_by_hand():
    student, teacher = (
        torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.9, 0.0]]),
        torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.8, 0.0]]),
    )
    item = _item(student.log(), teacher.log(), torch.tensor([0, 0]))
    assert item[0] == 2
    assert item[1] == pytest.approx(math.log(2) + 0.2 * math.log(2) + 0.8 * math.log(0.8 / 0.9), abs=1e-6)
    assert item[2] == 2
    sums = item[3:].reshape(2, BINS)
    assert sums[0].sum() == pytest.approx(1.4)
    assert sums[1].sum() == 1
    # |0.5 - 1| in one bin and |0.9 - 0| in another
    assert _calibration(sums) == pytest.approx(1.4)
    assert _calibration(np.array([[0.5, 0.9], [0.5, 0.9]])) == 0


def test_a_teacher_adds_its_scores(directories, tmp_path):
    (tmp_path / "t.yaml").write_text("prompt: '{q}'\nreference: '{a}'\nmetric: exact\nmax_new_tokens: 6\n")
    (tmp_path / "r.jsonl").write_text('{"q": "t5 t6", "a": "t7 t8"}\n{"q": "t9", "a": "t4"}\n')
    choice = Choice(str(tmp_path / "t.yaml"), str(tmp_path / "r.jsonl"))
    (result,) = evaluate_tasks(directories[1], [choice], [None], teacher=directories[0])
    added = ["forward_kl", "top1_agreement", "calibration_error", "draft_acceptance", "draft_length", "draft_kept"]
    assert list(result.scores) == ["exact_match", *added]
    assert result.provenance["teacher"]["path"] == str(directories[0])
    assert all(score.n == 2 for score in result.scores.values())

"""``check`` is asked before every round, and what it raises ends the sampling with every model as it was."""

import pytest

import skd
from tests.sampling.cases import load

PROMPTS = skd.Prompts(ids=[[5, 6], [7]], sample_ids=[0, 1])


class Stop(Exception):
    pass


@pytest.fixture
def pair():
    return load("llama", "llama", (("seed", 1),), (("seed", 2),))


@pytest.mark.parametrize("gate", [skd.TopK(3), skd.AcceptAll(), skd.AcceptNone()], ids=["top_k", "student", "teacher"])
def test_it_is_asked_once_a_round(pair, gate):
    asked = []
    rollout = skd.interleave(pair, PROMPTS, gate=gate, max_new_tokens=9, check=lambda: asked.append(1))
    assert len(asked) == rollout.stats.rounds > 1


def test_what_it_raises_ends_the_sampling(pair):
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 2:
            raise Stop

    pair.student.train()
    with pytest.raises(Stop):
        skd.interleave(pair, PROMPTS, gate=skd.TopK(3), max_new_tokens=9, check=check)
    assert len(asked) == 2
    assert pair.student.training
    assert not pair.teacher.training
    pair.student.eval()

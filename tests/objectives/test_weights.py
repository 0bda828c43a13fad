"""Weights by author and by the teacher's most probable ids, ties and chunks included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import ByAuthor, HiddenStates, TeacherTopK, TeacherView, log_probs
from skd.objectives import weights as weights_module
from skd.types import DATA, STUDENT, TEACHER, Head
from tests.objectives.tokens import response, top_log_probs

V, D = 12, 4


def teacher_of(logits_NV: Tensor) -> HiddenStates:
    """A teacher with these very logits."""
    return HiddenStates(logits_NV, Head(torch.eye(logits_NV.shape[-1])))


def random_case(num_tokens: int) -> tuple[Tensor, Tensor]:
    """(teacher's logits, ids written)"""
    generator = torch.Generator().manual_seed(num_tokens)
    logits_NV = torch.randn(num_tokens, V, generator=generator)
    return logits_NV, torch.randint(V, (num_tokens,), generator=generator)


def rank(logits_V: list[float], token: int) -> int:
    """How many ids are strictly more probable."""
    return sum(logit > logits_V[token] for logit in logits_V)


# ---- by author


def test_every_token_gets_the_weight_of_its_author() -> None:
    tokens = response(torch.zeros(5, dtype=torch.long), torch.tensor([TEACHER, DATA, STUDENT, STUDENT, DATA]))
    weights_N = ByAuthor(data=0.0, student=0.5, teacher=2.0)(tokens, None)
    assert weights_N.dtype == torch.float32
    assert weights_N.tolist() == [2.0, 0.0, 0.5, 0.5, 0.0]
    assert ByAuthor()(tokens, None).tolist() == [1.0] * 5
    assert ByAuthor()(tokens.at(slice(0)), None).shape == (0,)
    assert not ByAuthor().needs_teacher


def test_all_bad_weights_of_authors_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ByAuthor(data=-1.0, student=math.inf, teacher=math.nan)
    assert str(caught.value).splitlines()[0].startswith("error[SKD-C07] objective.weights.data: is -1.0; it must be 0")
    assert [problem.place for problem in caught.value.problems] == [
        "objective.weights.data",
        "objective.weights.student",
        "objective.weights.teacher",
    ]


# ---- by the teacher's most probable ids


@pytest.mark.parametrize("k", [1, 3, V - 1, V, V + 5])
@pytest.mark.parametrize("rejected", [0.0, 0.25])
def test_a_token_among_the_k_most_probable_counts_and_another_one_less(k: int, rejected: float) -> None:
    logits_NV, ids_N = random_case(60)
    weights_N = TeacherTopK(k, rejected)(response(ids_N), teacher_of(logits_NV))
    ranks = [rank(logits_V, token) for logits_V, token in zip(logits_NV.tolist(), ids_N.tolist(), strict=True)]
    assert weights_N.dtype == torch.float32
    assert weights_N.tolist() == [1.0 if place < k else rejected for place in ranks]
    assert k >= V or 0 < (weights_N == 1).sum() < 60


def test_ids_as_probable_as_the_last_one_are_among() -> None:
    logits_NV = torch.tensor([[5.0, 3.0, 3.0, 3.0, 1.0]]).expand(5, -1)
    weights = [TeacherTopK(k)(response(torch.arange(5)), teacher_of(logits_NV)).tolist() for k in (1, 2, 4, 5)]
    assert weights == [[1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("num_tokens", [1, 255, 256, 257, 600])
def test_chunks_do_not_show(num_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_NV, ids_N = random_case(num_tokens)
    teacher = teacher_of(logits_NV)
    by_default = TeacherTopK(3)(response(ids_N), teacher)
    assert weights_module._CHUNK == 256
    monkeypatch.setattr(weights_module, "_CHUNK", 10_000)
    assert torch.equal(by_default, TeacherTopK(3)(response(ids_N), teacher))
    assert by_default.shape == (num_tokens,)


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_stored_top_log_probs_say_the_same_up_to_what_they_hold(k: int) -> None:
    logits_NV, ids_N = random_case(300)
    stored = top_log_probs(log_probs(logits_NV), 5, ids_N)
    weights_N = TeacherTopK(k)(response(ids_N), stored)
    assert torch.equal(weights_N, TeacherTopK(min(k, 5))(response(ids_N), teacher_of(logits_NV)))


def test_no_gradient_reaches_the_teacher() -> None:
    logits_NV, ids_N = random_case(4)
    assert not TeacherTopK()(response(ids_N), teacher_of(logits_NV.requires_grad_())).requires_grad


@pytest.mark.parametrize("teacher", [None, teacher_of(torch.zeros(0, V))])
def test_no_tokens_need_no_teacher(teacher: TeacherView | None) -> None:
    weights_N = TeacherTopK()(response(torch.zeros(0, dtype=torch.long)), teacher)
    assert weights_N.shape == (0,)
    assert weights_N.dtype == torch.float32


def test_tokens_without_a_teacher_are_a_fault_of_the_caller() -> None:
    assert TeacherTopK().needs_teacher
    with pytest.raises(ValueError, match="these weights ask the teacher, and teacher is None"):
        TeacherTopK()(response(torch.arange(3)), None)


def test_all_bad_numbers_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TeacherTopK(k=0, rejected=1.5)
    assert [(problem.code, problem.place, problem.found) for problem in caught.value.problems] == [
        ("SKD-C07", "objective.weights.k", "is 0; it must be 1 or more"),
        ("SKD-C07", "objective.weights.rejected", "is 1.5; it must be in [0, 1]"),
    ]
    for rejected in (-0.1, math.nan):
        with pytest.raises(ConfigError, match=f"rejected: is {rejected}"):
            TeacherTopK(rejected=rejected)

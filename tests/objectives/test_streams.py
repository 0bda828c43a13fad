"""Each author's tokens learn by their own loss, in value and gradient, as if the others were not there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from skd.objectives import (
    JSD,
    NLL,
    ForwardKL,
    PerAuthor,
    PolicyGradient,
    ReverseKL,
    SampledReverseKL,
    TokenLoss,
    Tokens,
    log_probs,
)
from skd.schedule import Schedule
from skd.types import DATA, STUDENT, TEACHER
from tests.objectives.tokens import response

N, V = 12, 9
AUTHORS = torch.tensor([DATA, STUDENT, TEACHER, STUDENT] * 3)
STREAMS = [
    PerAuthor(data=NLL(), student=PolicyGradient(clip=0.2), teacher=ForwardKL()),
    PerAuthor(data=NLL(), student=ReverseKL(), teacher=NLL()),
    PerAuthor(data=ForwardKL(), student=SampledReverseKL(), teacher=JSD(Schedule(0.9, 0.1, over="response", tokens=9))),
    PerAuthor(data=NLL(), student=NLL(), teacher=NLL()),
]


def case(authors_N: Tensor = AUTHORS) -> tuple[Tensor, Tokens]:
    """The student's logits, a leaf, and the tokens."""
    generator = torch.Generator().manual_seed(0)
    student_NV, teacher_NV = 2 * torch.randn(2, N, V, generator=generator)
    ids_N = torch.randint(V, (N,), generator=generator)
    logits_NV = student_NV.clone().requires_grad_()
    written = torch.arange(N), ids_N
    logp_NV, teacher_logp_NV = log_probs(logits_NV), log_probs(teacher_NV)
    # A student that has moved on a little since: some ratios are clipped, most are not.
    rollout_logp_N = logp_NV.detach()[written] + 0.2 * torch.randn(N, generator=generator)
    tokens = response(ids_N, authors_N, rollout_logp_N=rollout_logp_N)
    return logits_NV, Tokens(tokens, logp_NV, logp_NV[written], teacher_logp_NV, teacher_logp_NV[written])


def by_author(losses: PerAuthor) -> dict[int, TokenLoss]:
    return {DATA: losses.data, STUDENT: losses.student, TEACHER: losses.teacher}


@pytest.mark.parametrize("losses", STREAMS, ids=repr)
def test_each_loss_is_that_of_its_own_tokens_in_value_and_gradient(losses: PerAuthor) -> None:
    logits_NV, tokens = case()
    weights_N = torch.rand(N, generator=torch.Generator().manual_seed(1))
    loss_N = losses(tokens)
    assert loss_N.dtype == torch.float32
    (grad_NV,) = torch.autograd.grad((weights_N * loss_N).sum(), logits_NV, retain_graph=True)
    for author, loss in by_author(losses).items():
        own = author == AUTHORS
        alone_N = loss(tokens)
        (alone_NV,) = torch.autograd.grad((weights_N * alone_N).sum(), logits_NV, retain_graph=True)
        torch.testing.assert_close(loss_N[own], alone_N[own], rtol=1e-6, atol=0)
        torch.testing.assert_close(grad_NV[own], alone_NV[own], rtol=1e-5, atol=1e-7)
        assert grad_NV[own].abs().max() > 1e-3


@pytest.mark.parametrize("author", [DATA, STUDENT, TEACHER])
def test_tokens_of_one_author_alone_are_that_loss(author: int) -> None:
    losses = STREAMS[0]
    _, tokens = case(torch.tensor(author).expand(N))
    torch.testing.assert_close(losses(tokens), by_author(losses)[author](tokens), rtol=1e-6, atol=0)


def test_no_tokens_have_no_losses() -> None:
    _, tokens = case()
    assert STREAMS[0](tokens.at(torch.zeros(0, dtype=torch.long))).shape == (0,)


@dataclass(frozen=True)
class Recorder:
    """NLL that notes what it was shown."""

    seen: list[Tokens]
    needs_teacher: bool = False
    needs_rollout_logp: bool = False

    def __call__(self, tokens: Tokens) -> Tensor:
        self.seen.append(tokens)
        return NLL()(tokens)


def test_a_loss_sees_all_of_its_own_tokens_and_no_other() -> None:
    recorder = Recorder([])
    _, tokens = case()
    PerAuthor(data=NLL(), student=recorder, teacher=NLL())(tokens)
    (seen,) = recorder.seen
    own = AUTHORS == STUDENT
    assert seen.teacher_logp_NV is not None
    assert seen.teacher_written_N is not None
    assert seen.response.rollout_logp_N is not None
    assert tokens.response.rollout_logp_N is not None
    for found, whole in [
        (seen.response.ids_N, tokens.response.ids_N),
        (seen.response.author_N, tokens.response.author_N),
        (seen.response.position_N, tokens.response.position_N),
        (seen.response.rollout_logp_N, tokens.response.rollout_logp_N),
        (seen.student_logp_NV, tokens.student_logp_NV),
        (seen.student_written_N, tokens.student_written_N),
        (seen.teacher_logp_NV, tokens.teacher_logp_NV),
        (seen.teacher_written_N, tokens.teacher_written_N),
    ]:
        assert whole is not None
        assert torch.equal(found, whole[own])


def test_what_is_infinite_for_one_loss_does_not_touch_the_tokens_of_another() -> None:
    """The teacher never writes the data's token; only the student's tokens are compared with it."""
    logits_NV, tokens = case()
    assert tokens.teacher_logp_NV is not None
    tokens.teacher_logp_NV[AUTHORS != STUDENT, 0] = -math.inf
    loss_N = PerAuthor(data=NLL(), student=ReverseKL(), teacher=NLL())(tokens)
    loss_N.sum().backward()
    assert ReverseKL()(tokens).isinf().sum() == (AUTHORS != STUDENT).sum()
    assert loss_N.isfinite().all()
    assert logits_NV.grad is not None
    assert logits_NV.grad.isfinite().all()


@pytest.mark.parametrize(
    ("losses", "teacher", "rollout"),
    [
        (PerAuthor(NLL(), NLL(), NLL()), False, False),
        (PerAuthor(JSD(), NLL(), NLL()), True, False),
        (PerAuthor(NLL(), JSD(), NLL()), True, False),
        (PerAuthor(NLL(), NLL(), JSD()), True, False),
        (PerAuthor(PolicyGradient(), NLL(), NLL()), True, True),
        (PerAuthor(NLL(), SampledReverseKL(), NLL()), True, True),
        (PerAuthor(NLL(), NLL(), PolicyGradient()), True, True),
    ],
    ids=repr,
)
def test_what_one_loss_needs_all_need(losses: PerAuthor, teacher: bool, rollout: bool) -> None:
    assert losses.needs_teacher == teacher
    assert losses.needs_rollout_logp == rollout
    assert losses == PerAuthor(losses.data, losses.student, losses.teacher)

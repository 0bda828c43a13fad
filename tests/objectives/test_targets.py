"""Targets against float64 formulas: normalised, without a gradient, exact at their ends, and true with zeros."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import (
    JSD,
    ForwardKL,
    Objective,
    Plain,
    ReverseKL,
    Taid,
    Target,
    TokenLoss,
    Tokens,
    Veto,
    log_probs,
)
from skd.schedule import Number, Schedule
from tests.objectives.tokens import tokens
from tests.objectives.twins import DIVERGENCES, twin
from tests.oracles import divergences as oracle
from tests.oracles.divergences import Array

N, V = 6, 9
NO_TARGETS = torch.zeros(0, dtype=torch.long)
ALONG = {"over": "response", "tokens": 4}
TARGETS: list[Target] = [Veto(0.5), Veto(2.0), Taid(0.3), Taid(0.8)]


def pair(num_tokens: int = N, vocab: int = V, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of the student, a leaf, and log-probs of the teacher."""
    student_NV, teacher_NV = 2 * torch.randn(2, num_tokens, vocab, generator=torch.Generator().manual_seed(seed))
    return student_NV.clone().requires_grad_(), log_probs(teacher_NV)


def data(progress: float = 0.0) -> Tokens:
    student_NV, teacher_NV = pair()
    return tokens(log_probs(student_NV), teacher_NV, NO_TARGETS, progress=progress)


def formula(target: Target, student_NV: Array, teacher_NV: Array, value_N: list[float]) -> Array:
    """By the papers, with the number that the target takes at each token."""
    powers_N = np.array(value_N)
    if isinstance(target, Veto):
        return oracle.geometric(student_NV, teacher_NV, np.ones_like(powers_N), powers_N)
    return oracle.geometric(student_NV, teacher_NV, powers_N, 1.0 - powers_N)


def assert_is_formula(target: Target, seen: Tokens, value_N: list[float]) -> None:
    assert seen.teacher_logp_NV is not None
    student_NV, teacher_NV = seen.student_logp_NV.detach().exp().double(), seen.teacher_logp_NV.exp().double()
    expected_NV = formula(target, student_NV.numpy(), teacher_NV.numpy(), value_N)
    np.testing.assert_allclose(target(seen).exp().numpy(), expected_NV, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("target", [Veto(0.0), *TARGETS, Taid(0.0), Taid(1.0)], ids=repr)
def test_a_target_is_its_formula(target: Veto | Taid) -> None:
    value = target.beta if isinstance(target, Veto) else target.t
    assert isinstance(value, float)
    assert_is_formula(target, data(), [value] * N)


def test_veto_by_hand() -> None:
    """T = (1/2, 1/2), S = (1/4, 3/4), beta 1: as S. Beta 1/2: as (1, sqrt 3)."""
    student, teacher = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5]]).log()
    seen = tokens(student, teacher, NO_TARGETS)
    torch.testing.assert_close(Veto(1.0)(seen).exp(), torch.tensor([[0.25, 0.75]]))
    root = math.sqrt(3)
    torch.testing.assert_close(Veto(0.5)(seen).exp(), torch.tensor([[1.0, root]]) / (1 + root))


def test_taid_by_hand() -> None:
    """T = (1/10, 9/10), S = (9/10, 1/10): even at t = 1/2, and as (1, 3) at t = 3/4."""
    student, teacher = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()
    seen = tokens(student, teacher, NO_TARGETS)
    torch.testing.assert_close(Taid(0.5)(seen).exp(), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(Taid(0.75)(seen).exp(), torch.tensor([[0.25, 0.75]]))


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_target_is_normalised_at_a_large_vocabulary(target: Target) -> None:
    student_NV, teacher_NV = pair(2, 262_144)
    target_NV = target(tokens(log_probs(student_NV), teacher_NV, NO_TARGETS))
    assert target_NV.dtype == torch.float32
    assert (target_NV.double().exp().sum(-1) - 1).abs().max() <= 2e-6


@pytest.mark.parametrize("target", [Plain(), *TARGETS], ids=repr)
@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_no_gradient_passes_through_the_target(target: Target, loss: TokenLoss) -> None:
    """So the gradient is the divergence's own to a constant."""
    student_logits_NV, teacher_logp_NV = pair()
    seen = tokens(log_probs(student_logits_NV), teacher_logp_NV, NO_TARGETS)
    target_NV = target(seen)
    assert not target_NV.requires_grad
    loss_N = Objective(loss, target).token_losses(seen)
    loss_N.sum().backward()
    student_NV, constant_NV = (x.detach().double().numpy() for x in (seen.student_logp_NV.exp(), target_NV.exp()))
    expected_N, expected_NV = twin(loss, student_NV, constant_NV, np.zeros(N, dtype=np.int64))
    np.testing.assert_allclose(loss_N.detach().numpy(), expected_N, rtol=1e-4, atol=1e-6)
    assert student_logits_NV.grad is not None
    np.testing.assert_allclose(student_logits_NV.grad.numpy(), expected_NV, rtol=1e-3, atol=1e-6)


# ---- ends


@pytest.mark.parametrize(
    "target",
    [Veto(0.0), Taid(1.0), Veto(Schedule(1.0, 0.0)), Taid(Schedule(0.4, 1.0)), Veto(), Taid()],
    ids=repr,
)
def test_at_its_end_a_target_is_the_teacher_to_the_last_bit(target: Target) -> None:
    seen = data(progress=1.0)
    assert torch.equal(target(seen), Plain()(seen))
    for loss in DIVERGENCES:
        assert torch.equal(Objective(loss, target).token_losses(seen), loss(seen))


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_taid_at_0_leaves_nothing_to_learn(loss: TokenLoss) -> None:
    student_logits_NV, teacher_logp_NV = pair()
    seen = tokens(log_probs(student_logits_NV), teacher_logp_NV, NO_TARGETS)
    loss_N = Objective(loss, Taid(0.0)).token_losses(seen)
    loss_N.sum().backward()
    assert loss_N.abs().max() <= 1e-6
    assert student_logits_NV.grad is not None
    # Which way a total variation of rounding errors goes is chance.
    assert student_logits_NV.grad.abs().max() <= 1e-6 or repr(loss) == "TotalVariation()"


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_the_papers_schedules_are_the_defaults(progress: float) -> None:
    """Veto's beta falls to 0, TAID's t rises to 1."""
    assert_is_formula(Veto(), data(progress), [1.0 - progress] * N)
    assert_is_formula(Taid(), data(progress), [0.4 + 0.6 * progress] * N)


def test_a_schedule_along_the_response_gives_each_token_its_own_target() -> None:
    falling, rising = Schedule(1.0, 0.0, **ALONG), Schedule(0.0, 1.0, **ALONG)  # type: ignore[arg-type]
    assert_is_formula(Veto(falling), data(), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    assert_is_formula(Taid(rising), data(), [0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    seen = data()
    assert torch.equal(Veto(falling)(seen)[4:], Plain()(seen)[4:])
    assert not torch.equal(Veto(falling)(seen)[:4], Plain()(seen)[:4])


def test_the_student_vetoes_and_does_not_vote() -> None:
    """The more beta, the less mass where the student has little, and the nearer target and student are."""
    seen = data()
    distances = [Objective(ForwardKL(), Veto(beta)).token_losses(seen).sum().item() for beta in (0.0, 0.25, 0.5, 1.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]
    improbable = seen.student_logp_NV[0].argmin()
    masses = [Veto(beta)(seen)[0, improbable].item() for beta in (0.0, 0.5, 1.0)]
    assert masses[0] > masses[1] > masses[2]


# ---- zero probabilities

PATTERNS = [zeros for zeros in itertools.product([False, True], repeat=3) if not all(zeros)]


@pytest.mark.parametrize("target", [Veto(0.0), *TARGETS, Taid(0.0), Taid(1.0)], ids=repr)
@pytest.mark.parametrize("loss", [ForwardKL(), ReverseKL(), JSD()], ids=repr)
def test_every_pattern_of_zero_probabilities_gives_a_distribution_and_a_finite_gradient(
    target: Target, loss: TokenLoss
) -> None:
    pairs = list(itertools.product(PATTERNS, repeat=2))
    student_zero, teacher_zero = (torch.tensor(column) for column in zip(*pairs, strict=True))
    student_logits_NV, teacher_logp_NV = pair(len(pairs), 3)
    student_logits_NV = student_logits_NV.detach().masked_fill(student_zero, -math.inf).requires_grad_()
    teacher_logp_NV = torch.log_softmax(teacher_logp_NV.masked_fill(teacher_zero, -math.inf), -1)
    seen = tokens(torch.log_softmax(student_logits_NV, -1), teacher_logp_NV, NO_TARGETS)

    target_NV = target(seen)
    torch.testing.assert_close(target_NV.exp().sum(-1), torch.ones(len(pairs)))
    uses_both = target not in (Veto(0.0), Taid(0.0), Taid(1.0))
    has_common_mass = (~(student_zero | teacher_zero)).any(-1)
    if uses_both:
        assert (target_NV[has_common_mass] == -math.inf)[(student_zero | teacher_zero)[has_common_mass]].all()
        assert torch.equal(target_NV[~has_common_mass], teacher_logp_NV[~has_common_mass])
    loss_N = Objective(loss, target).token_losses(seen)
    assert not loss_N.isnan().any()
    loss_N.sum().backward()
    assert student_logits_NV.grad is not None
    assert student_logits_NV.grad.isfinite().all()


# ---- use


@pytest.mark.parametrize("target", [Plain(), *TARGETS], ids=repr)
def test_a_target_without_a_teacher_is_a_fault_of_the_caller(target: Target) -> None:
    with pytest.raises(ValueError, match="teacher_logp_NV is None"):
        target(tokens(log_probs(pair()[0]), None, NO_TARGETS))


@pytest.mark.parametrize(
    ("beta", "found"),
    [(-0.1, -0.1), (math.inf, "inf"), (math.nan, "nan"), (Schedule(0.5, -0.5), -0.5), (Schedule(math.inf, 0.0), "inf")],
)
def test_veto_refuses_a_beta_that_is_negative_or_not_finite(beta: Number, found: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Veto(beta)
    assert str(caught.value) == (
        f"error[SKD-C07] objective.target.beta: beta is {found}; it must be 0 or more; leave it out for the paper's"
    )


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan, Schedule(0.5, 1.1)])
def test_taid_refuses_a_t_outside_0_to_1(t: Number) -> None:
    with pytest.raises(ConfigError) as caught:
        Taid(t)
    found = 1.1 if isinstance(t, Schedule) else t
    assert str(caught.value) == (
        f"error[SKD-C07] objective.target.t: t is {found}; it must be in [0, 1]; leave it out for the paper's"
    )


def test_targets_are_values() -> None:
    assert Veto(0.3) == Veto(0.3) != Veto(0.4)
    assert Veto() == Veto(Schedule(1.0, 0.0))
    assert Taid() == Taid(Schedule(0.4, 1.0))

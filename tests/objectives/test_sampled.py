"""Losses from the token written alone: their values, PPO's clipping by hand, and exact expectations over all tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import PolicyGradient, SampledReverseKL, TokenLoss, Tokens
from tests.objectives.tokens import response, tokens
from tests.oracles import divergences as oracle

V = 12
LOSSES: list[TokenLoss] = [PolicyGradient(), PolicyGradient(clip=0.2), SampledReverseKL()]


def written(student: float | Tensor, teacher: float, old: float | None = None) -> Tokens:
    """One token of these log-probs. No loss here looks at any other id, so the distributions are left empty."""
    old_N = None if old is None else torch.tensor([old])
    student_N = student if isinstance(student, Tensor) else torch.tensor([student])
    nothing_NV = torch.zeros(1, 0)
    response_1 = response(torch.zeros(1, dtype=torch.long), rollout_logp_N=old_N)
    return Tokens(response_1, nothing_NV, student_N, nothing_NV, torch.tensor([teacher]))


def value_and_slope(loss: TokenLoss, student: float, teacher: float, old: float | None = None) -> tuple[float, float]:
    """The loss and its derivative for the student's log-prob."""
    student_1 = torch.tensor([student], requires_grad=True)
    loss_1 = loss(written(student_1, teacher, old))
    loss_1.sum().backward()
    assert student_1.grad is not None
    return loss_1.item(), student_1.grad.item()


# ---- one token, by hand


@pytest.mark.parametrize("old", [-1.5, None])
@pytest.mark.parametrize("loss", [PolicyGradient(), PolicyGradient(clip=0.2)], ids=repr)
@pytest.mark.parametrize(("teacher", "k1"), [(-0.5, -1.0), (-1.5, 0.0), (-4.0, 2.5)])
def test_policy_gradient_on_a_fresh_sample_is_the_k1_estimator(
    loss: TokenLoss, old: float | None, teacher: float, k1: float
) -> None:
    """Value log S_old - log T, and that is also the slope: advantage x gradient of log S, descended."""
    assert value_and_slope(loss, -1.5, teacher, old) == pytest.approx((k1, k1))


def test_policy_gradient_on_an_old_sample_is_weighted_by_the_ratio() -> None:
    # advantage -1 - (-2) = 1, ratio e^(-1.5 + 2)
    ratio = math.exp(0.5)
    assert value_and_slope(PolicyGradient(), -1.5, -1.0, -2.0) == pytest.approx((-ratio, -ratio))


@pytest.mark.parametrize(
    ("advantage", "ratio", "counted", "learns"),
    [
        (2.0, 1.0, 1.0, True),
        (2.0, 1.1, 1.1, True),
        (2.0, 1.5, 1.2, False),  # already more probable: no further
        (2.0, 0.5, 0.5, True),  # moved the wrong way: not bounded
        (-2.0, 1.0, 1.0, True),
        (-2.0, 0.9, 0.9, True),
        (-2.0, 0.5, 0.8, False),  # already less probable: no further
        (-2.0, 1.5, 1.5, True),  # moved the wrong way: not bounded
    ],
)
def test_clipping_is_ppos(advantage: float, ratio: float, counted: float, learns: bool) -> None:
    old = -3.0
    arguments = old + math.log(ratio), old + advantage, old
    slope = -advantage * ratio if learns else 0.0
    assert value_and_slope(PolicyGradient(clip=0.2), *arguments) == pytest.approx((-advantage * counted, slope))
    unclipped = value_and_slope(PolicyGradient(), *arguments)
    assert unclipped == pytest.approx((-advantage * ratio, -advantage * ratio))


@pytest.mark.parametrize("old", [-1.5, None])
@pytest.mark.parametrize("teacher", [-0.5, -1.5, -4.0])
def test_sampled_reverse_kl_on_a_fresh_sample_is_the_k3_estimator_with_the_slope_of_k1(
    old: float | None, teacher: float
) -> None:
    """k3 = r - 1 - log r with r = T / S. Its own slope is 1 - r; the ratio's is k3; together -log r."""
    log_r = teacher + 1.5
    expected = math.exp(log_r) - 1 - log_r, -log_r
    assert value_and_slope(SampledReverseKL(), -1.5, teacher, old) == pytest.approx(expected, abs=1e-6)


def test_sampled_reverse_kl_on_an_old_sample_is_weighted_by_the_ratio() -> None:
    ratio, log_r = math.exp(0.5), 0.5
    expected = ratio * (math.exp(log_r) - 1 - log_r), ratio * -log_r
    assert value_and_slope(SampledReverseKL(), -1.5, -1.0, -2.0) == pytest.approx(expected)


def test_sampled_reverse_kl_is_never_negative_and_keeps_its_digits_near_0() -> None:
    for difference in (0.0, 2**-20, -(2**-20), 2**-10, -(2**-10), 0.125, -0.125, 0.75, -4.0):
        value, _ = value_and_slope(SampledReverseKL(), -1.0, -1.0 + difference)
        assert value >= 0.0
        assert value == pytest.approx(math.expm1(difference) - difference, abs=2e-7 * abs(difference))


# ---- expectations, exactly: every token of the vocabulary, weighted by the probability that it is sampled


def expected(
    loss: Callable[[Tokens], Tensor], old_logits_V: Tensor | None = None, seed: int = 0
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """(expectation, its gradient [1, V] for the student's logits, student [1, V], teacher [1, V]) in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits_V, teacher_logits_V = torch.randn(2, V, generator=generator, dtype=torch.float64) * 1.5
    logits_V = logits_V.clone().requires_grad_()
    student_VV = torch.log_softmax(logits_V, -1).expand(V, V)
    teacher_VV = torch.log_softmax(teacher_logits_V, -1).expand(V, V)
    sampler_V = student_VV[0].detach() if old_logits_V is None else torch.log_softmax(old_logits_V, -1)
    everything = tokens(student_VV, teacher_VV, torch.arange(V))
    if old_logits_V is not None:
        everything = Tokens(
            response(torch.arange(V), rollout_logp_N=sampler_V),
            student_VV,
            everything.student_written_N,
            teacher_VV,
            everything.teacher_written_N,
        )
    mean = (sampler_V.exp() * loss(everything)).sum()
    mean.backward()
    assert logits_V.grad is not None
    student_1V, teacher_1V = student_VV[:1].detach().exp().numpy(), teacher_VV[:1].exp().numpy()
    return mean.item(), logits_V.grad.numpy()[None], student_1V, teacher_1V


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_fresh_samples_value_and_gradient_are_in_expectation_those_of_reverse_kl(loss: TokenLoss, seed: int) -> None:
    value, grad_NV, student_NV, teacher_NV = expected(loss, seed=seed)
    assert value == pytest.approx(oracle.reverse_kl(student_NV, teacher_NV).item(), rel=1e-12)
    np.testing.assert_allclose(grad_NV, oracle.reverse_kl_grad(student_NV, teacher_NV), rtol=1e-10, atol=1e-14)


def test_on_old_samples_the_ratio_makes_the_k3_estimator_exact_too() -> None:
    old_logits_V = torch.randn(V, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    value, grad_NV, student_NV, teacher_NV = expected(SampledReverseKL(), old_logits_V)
    assert value == pytest.approx(oracle.reverse_kl(student_NV, teacher_NV).item(), rel=1e-12)
    np.testing.assert_allclose(grad_NV, oracle.reverse_kl_grad(student_NV, teacher_NV), rtol=1e-10, atol=1e-14)


def test_the_k3_estimator_without_its_ratio_would_descend_forward_kl() -> None:
    def without_ratio(data: Tokens) -> Tensor:
        assert data.teacher_written_N is not None
        log_r_N = data.teacher_written_N - data.student_written_N
        return torch.expm1(log_r_N) - log_r_N

    value, grad_NV, student_NV, teacher_NV = expected(without_ratio)
    assert value == pytest.approx(oracle.reverse_kl(student_NV, teacher_NV).item(), rel=1e-12)
    np.testing.assert_allclose(grad_NV, oracle.forward_kl_grad(student_NV, teacher_NV), rtol=1e-10, atol=1e-14)
    assert np.abs(grad_NV - oracle.reverse_kl_grad(student_NV, teacher_NV)).max() > 0.01


def test_the_log_ratio_alone_has_no_gradient_in_expectation() -> None:
    """Why k1 needs the ratio: log S - log T, differentiated as it stands, teaches nothing."""
    _, grad_NV, _, _ = expected(lambda data: data.student_written_N - data.teacher_written_N)  # type: ignore[operator]
    np.testing.assert_allclose(grad_NV, 0.0, atol=1e-14)


# ---- edges


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("old", [-2.0, None])
def test_a_token_that_the_teacher_never_writes_costs_infinitely_and_has_a_finite_gradient(
    loss: TokenLoss, old: float | None
) -> None:
    value, slope = value_and_slope(loss, -1.5, -math.inf, old)
    assert value == math.inf
    assert math.isfinite(slope)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_sampled_loss_needs_teacher_and_rollout_and_says_so(loss: TokenLoss) -> None:
    assert loss.needs_teacher
    assert loss.needs_rollout_logp
    with pytest.raises(ValueError, match="teacher_written_N is None"):
        loss(tokens(torch.zeros(1, 1), None, torch.zeros(1, dtype=torch.long)))


@pytest.mark.parametrize("clip", [0.0, -0.2, math.nan])
def test_a_clip_must_be_above_0(clip: float) -> None:
    with pytest.raises(ConfigError) as caught:
        PolicyGradient(clip)
    assert str(caught.value) == (
        f"error[SKD-C07] objective.loss.clip: clip is {clip}, and it must be above 0; 0.2 is usual; "
        "null for no clipping"
    )

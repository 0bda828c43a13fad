"""Identities, hand-worked numbers, the float64 oracle in value and gradient, and zero probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import (
    JSD,
    NLL,
    ForwardKL,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    TokenLoss,
    TotalVariation,
    log_probs,
)
from skd.schedule import Number, Schedule, ends
from tests.objectives.tokens import tokens
from tests.objectives.twins import DIVERGENCES, twin
from tests.oracles import divergences as oracle

NO_TARGETS = torch.zeros(0, dtype=torch.long)
BIG_VOCABULARY = 262_144


def divergence(loss: TokenLoss, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """The loss of probabilities, for tests that think in them."""
    return loss(tokens(student_NV.log(), teacher_NV.log(), NO_TARGETS))


def random_logp(num_tokens: int, vocab: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(spread * torch.randn(num_tokens, vocab, generator=generator), -1)


# ---- identities


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_a_distribution_has_no_divergence_from_itself(loss: TokenLoss) -> None:
    logits_NV = 3.0 * torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    logits_NV.requires_grad_()
    logp_NV = torch.log_softmax(logits_NV, -1)
    loss_N = loss(tokens(logp_NV, logp_NV.detach(), NO_TARGETS))
    loss_N.sum().backward()
    assert loss_N.abs().max() <= 1e-7
    assert logits_NV.grad is not None
    assert logits_NV.grad.abs().max() <= 1e-6


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-4, 1e-2, 1.0, 10.0])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_divergences_are_not_negative(loss: TokenLoss, distance: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits_NV = spread * torch.randn(8, 5000, generator=generator)
    moved_NV = logits_NV + distance * torch.randn(8, 5000, generator=generator)
    loss_N = loss(tokens(torch.log_softmax(logits_NV, -1), torch.log_softmax(moved_NV, -1), NO_TARGETS))
    assert loss_N.min() >= -1e-7


def test_reverse_kl_is_forward_kl_with_the_roles_swapped() -> None:
    a_NV, b_NV = random_logp(5, 40, seed=1), random_logp(5, 40, seed=2)
    assert torch.equal(ForwardKL()(tokens(a_NV, b_NV, NO_TARGETS)), ReverseKL()(tokens(b_NV, a_NV, NO_TARGETS)))
    assert not torch.allclose(ForwardKL()(tokens(a_NV, b_NV, NO_TARGETS)), ReverseKL()(tokens(a_NV, b_NV, NO_TARGETS)))


def test_jsd_with_the_roles_swapped_is_jsd_with_beta_mirrored() -> None:
    a_NV, b_NV = random_logp(5, 40, seed=1), random_logp(5, 40, seed=2)
    torch.testing.assert_close(JSD()(tokens(a_NV, b_NV, NO_TARGETS)), JSD()(tokens(b_NV, a_NV, NO_TARGETS)))
    torch.testing.assert_close(JSD(0.2)(tokens(a_NV, b_NV, NO_TARGETS)), JSD(0.8)(tokens(b_NV, a_NV, NO_TARGETS)))
    assert not torch.allclose(JSD(0.2)(tokens(a_NV, b_NV, NO_TARGETS)), JSD(0.8)(tokens(a_NV, b_NV, NO_TARGETS)))


@pytest.mark.parametrize("beta", [0.01, 0.3, 0.5, 0.9])
def test_jsd_of_disjoint_distributions_is_the_entropy_of_the_mixture(beta: float) -> None:
    student_NV, teacher_NV = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    entropy = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    assert divergence(JSD(beta), student_NV, teacher_NV).item() == pytest.approx(entropy, rel=1e-6)
    assert entropy <= math.log(2) + 1e-12


def test_jsd_is_at_most_ln_2_and_needs_no_common_mass() -> None:
    far_NV = torch.log_softmax(torch.tensor([[0.0, 1000.0], [1000.0, 0.0]]), -1)
    loss_N = JSD()(tokens(far_NV, far_NV.flip(0), NO_TARGETS))
    torch.testing.assert_close(loss_N, torch.full((2,), math.log(2)))


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_jsd_tends_to_0_at_both_ends(end: float) -> None:
    a_NV, b_NV = random_logp(5, 40, seed=1), random_logp(5, 40, seed=2)
    values = [JSD(abs(end - distance))(tokens(a_NV, b_NV, NO_TARGETS)).max().item() for distance in (1e-1, 1e-3, 1e-5)]
    assert values[0] > 10 * values[1] > 100 * values[2] > 0
    assert values[2] < 1e-4


SKEWED = [SkewKL, SkewReverseKL]


@pytest.mark.parametrize("skewed", SKEWED)
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.5, 0.9])
def test_skew_divergences_are_at_most_minus_log_alpha_and_reach_it_without_common_mass(
    skewed: type[SkewKL] | type[SkewReverseKL], alpha: float
) -> None:
    far_NV = 30.0 * torch.randn(20, 40, generator=torch.Generator().manual_seed(1))
    student_NV, teacher_NV = torch.log_softmax(far_NV, -1), torch.log_softmax(far_NV.flip(0), -1)
    values_N = skewed(alpha)(tokens(student_NV, teacher_NV, NO_TARGETS))
    assert values_N.max() <= -math.log(alpha) * (1 + 1e-6)
    assert ForwardKL()(tokens(student_NV, teacher_NV, NO_TARGETS)).max() > -math.log(alpha), "the bound is felt"
    apart = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    assert divergence(skewed(alpha), *apart).item() == pytest.approx(-math.log(alpha), rel=1e-6)


@pytest.mark.parametrize(("skewed", "plain"), [(SkewKL, ForwardKL()), (SkewReverseKL, ReverseKL())])
def test_skew_divergences_tend_to_the_plain_one_at_0_and_to_0_at_1(
    skewed: type[SkewKL] | type[SkewReverseKL], plain: TokenLoss
) -> None:
    data = tokens(random_logp(5, 40, spread=1.0, seed=1), random_logp(5, 40, spread=1.0, seed=2), NO_TARGETS)
    plain_N = plain(data)
    gaps = [(skewed(alpha)(data) / plain_N - 1).abs().max().item() for alpha in (1e-1, 1e-3, 1e-5)]
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2] > 0
    assert gaps[2] < 1e-3
    shares = [(skewed(1 - alpha)(data) / plain_N).max().item() for alpha in (1e-1, 1e-2, 1e-3)]
    assert shares[0] > 10 * shares[1] > 100 * shares[2] > 0
    for alpha in (0.1, 0.5, 0.9):  # the KL is convex
        assert (skewed(alpha)(data) <= (1 - alpha) * plain_N * (1 + 1e-6)).all()


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_jsd_is_the_mean_of_both_skew_divergences(beta: float) -> None:
    data = tokens(random_logp(5, 40, seed=1), random_logp(5, 40, seed=2), NO_TARGETS)
    mean_N = beta * SkewKL(beta)(data) + (1 - beta) * SkewReverseKL(1 - beta)(data)
    torch.testing.assert_close(JSD(beta)(data), mean_N, rtol=1e-5, atol=0)


def test_total_variation_is_1_without_common_mass_and_below_pinskers_bound() -> None:
    apart = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    assert divergence(TotalVariation(), *apart).item() == 1.0
    data = tokens(random_logp(50, 40, seed=1), random_logp(50, 40, seed=2), NO_TARGETS)
    assert (TotalVariation()(data) <= (0.5 * ForwardKL()(data)).sqrt()).all()
    assert TotalVariation()(data).max() < 1.0


# ---- numbers worked by hand: p = (1/2, 1/2) and q = (1/4, 3/4)

P, Q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
KL_P_Q = 0.5 * math.log(4 / 3)  # 1/2 ln 2 + 1/2 ln 2/3
KL_Q_P = 0.75 * math.log(3) - math.log(2)  # 1/4 ln 1/2 + 3/4 ln 3/2
JSD_P_Q = 0.5 * (0.5 * math.log(16 / 15)) + 0.5 * (0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5))  # M = (3/8, 5/8)


@pytest.mark.parametrize(
    ("loss", "student", "teacher", "expected"),
    [
        (ForwardKL(), Q, P, KL_P_Q),
        (ForwardKL(), P, Q, KL_Q_P),
        (ReverseKL(), P, Q, KL_P_Q),
        (ReverseKL(), Q, P, KL_Q_P),
        (JSD(), P, Q, JSD_P_Q),
        # teacher (1, 0), student (1/2, 1/2), beta 1/4: M = (5/8, 3/8)
        (JSD(0.25), P, torch.tensor([[1.0, 0.0]]), 0.25 * math.log(8 / 5) + 0.375 * math.log(16 / 15)),
        # alpha 1/2: M = (3/8, 5/8)
        (SkewKL(0.5), Q, P, 0.5 * math.log(16 / 15)),
        (SkewReverseKL(0.5), Q, P, 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)),
        # alpha is the share of the first: M = 1/4 p + 3/4 q = (5/16, 11/16)
        (SkewKL(0.25), Q, P, 0.5 * math.log(8 / 5) + 0.5 * math.log(8 / 11)),
        (SkewReverseKL(0.25), P, Q, 0.5 * math.log(8 / 5) + 0.5 * math.log(8 / 11)),
        (TotalVariation(), Q, P, 0.25),
        (TotalVariation(), P, torch.tensor([[1.0, 0.0]]), 0.5),
        # a sure teacher: forward KL is the cross-entropy, ln 4
        (ForwardKL(), Q, torch.tensor([[1.0, 0.0]]), math.log(4)),
    ],
)
def test_hand_worked_values(loss: TokenLoss, student: Tensor, teacher: Tensor, expected: float) -> None:
    assert divergence(loss, student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_the_written_out_numbers_are_what_the_fractions_say() -> None:
    assert pytest.approx(0.1438410362) == KL_P_Q
    assert pytest.approx(0.1308120359) == KL_Q_P
    assert pytest.approx(0.0338220756) == JSD_P_Q


def test_nll_is_minus_the_log_probability_of_the_target() -> None:
    loss_N = NLL()(tokens(torch.cat([Q, Q]).log(), None, torch.tensor([0, 1])))
    torch.testing.assert_close(loss_N, torch.tensor([math.log(4), math.log(4 / 3)]))


def test_hand_worked_gradient_of_forward_kl_for_the_logits_is_student_minus_teacher() -> None:
    logits_NV = Q.log().requires_grad_()
    ForwardKL()(tokens(torch.log_softmax(logits_NV, -1), P.log(), NO_TARGETS)).sum().backward()
    torch.testing.assert_close(logits_NV.grad, torch.tensor([[-0.25, 0.25]]))


# ---- the float64 oracle


def relative_error(value: Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value.double().numpy() - expected) / np.linalg.norm(expected))


def errors_at_a_large_vocabulary(loss: TokenLoss, distance: float, spread: float) -> tuple[float, float]:
    """Largest relative error of a token's value, and the gradient's relative error in norm, from logits on."""
    generator = torch.Generator().manual_seed(3)
    student_logits_NV = spread * torch.randn(2, BIG_VOCABULARY, generator=generator)
    teacher_logits_NV = student_logits_NV + distance * torch.randn(2, BIG_VOCABULARY, generator=generator)
    targets_N = torch.tensor([0, BIG_VOCABULARY - 1])
    student_logits_NV.requires_grad_()
    loss_N = loss(tokens(log_probs(student_logits_NV), log_probs(teacher_logits_NV), targets_N))
    loss_N.sum().backward()

    student_NV = oracle.softmax(student_logits_NV.detach().double().numpy())
    teacher_NV = oracle.softmax(teacher_logits_NV.double().numpy())
    expected_N, expected_grad_NV = twin(loss, student_NV, teacher_NV, targets_N.numpy())
    assert loss_N.dtype == torch.float32
    assert student_logits_NV.grad is not None
    value_error = float(np.abs(loss_N.detach().numpy() / expected_N - 1).max())
    compared_NV = np.ones_like(student_NV, dtype=bool)
    if loss == TotalVariation():
        # Its gradient jumps where both are equal, and closer than this float32 does not tell which one is larger.
        compared_NV = np.abs(np.log(student_NV / teacher_NV)) > 1e-5
        assert compared_NV.mean() > 0.999
    grad_NV = student_logits_NV.grad.double().numpy()
    grad_error = np.linalg.norm((grad_NV - expected_grad_NV)[compared_NV]) / np.linalg.norm(expected_grad_NV)
    return value_error, float(grad_error)


@pytest.mark.parametrize("loss", [NLL(), *DIVERGENCES], ids=repr)
@pytest.mark.parametrize("distance", [0.5, 3.0])
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_value_and_gradient_equal_the_float64_oracle_at_a_large_vocabulary(
    loss: TokenLoss, distance: float, spread: float
) -> None:
    value_error, grad_error = errors_at_a_large_vocabulary(loss, distance, spread)
    assert value_error <= 1e-5
    assert grad_error <= 1e-5


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_a_divergence_near_1e_4_keeps_its_digits_at_a_large_vocabulary(loss: TokenLoss, spread: float) -> None:
    """A float32 log-probability near -12 is rounded by 5e-7. The value must not see that in first order; the gradient,
    a difference of two such numbers that are 0.02 apart (for the JSD 0.002), cannot do better than this. The total
    variation is such a difference itself: it is near 1e-2 here, and its value is off by no more than 1e-6."""
    value_error, grad_error = errors_at_a_large_vocabulary(loss, 0.02, spread)
    assert value_error <= (1e-4 if loss == TotalVariation() else 1e-5)
    assert grad_error <= 3e-4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_log_probs_are_normalised_to_1e_6_at_a_large_vocabulary(temperature: float) -> None:
    logits_NV = 4.0 * torch.randn(4, BIG_VOCABULARY, generator=torch.Generator().manual_seed(3))
    logp_NV = log_probs(logits_NV.bfloat16(), temperature)
    expected_NV = torch.log_softmax(logits_NV.bfloat16().double() / temperature, -1)
    assert logp_NV.dtype == torch.float32
    assert (logp_NV.double() - expected_NV).mean(-1).abs().max() <= 2e-6
    torch.testing.assert_close(logp_NV, expected_NV.float(), rtol=1e-6, atol=2e-6)


def mirror(loss: TokenLoss) -> TokenLoss:
    """The divergence that has the same value when student and teacher change places."""
    match loss:
        case ForwardKL():
            return ReverseKL()
        case ReverseKL():
            return ForwardKL()
        case JSD(float(beta)):
            return JSD(1 - beta)
        case SkewKL(alpha):
            return SkewReverseKL(alpha)
        case SkewReverseKL(alpha):
            return SkewKL(alpha)
        case TotalVariation():
            return loss
    raise AssertionError(loss)


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_a_divergence_with_the_roles_swapped_is_its_mirror(loss: TokenLoss) -> None:
    a_NV, b_NV = random_logp(5, 40, seed=1), random_logp(5, 40, seed=2)
    swapped_N = mirror(loss)(tokens(b_NV, a_NV, NO_TARGETS))
    torch.testing.assert_close(loss(tokens(a_NV, b_NV, NO_TARGETS)), swapped_N, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_a_gradient_for_the_teacher_is_right_too(loss: TokenLoss) -> None:
    """Losses are functions of two distributions; a learned target would need this side."""
    student_logp_NV = random_logp(3, 7, seed=1)
    teacher_logits_NV = random_logp(3, 7, seed=2).requires_grad_()
    loss(tokens(student_logp_NV, torch.log_softmax(teacher_logits_NV, -1), NO_TARGETS)).sum().backward()
    # By the swap, the teacher's gradient is the student's gradient of the mirrored loss.
    teacher_NV, student_NV = (x.detach().exp().double().numpy() for x in (teacher_logits_NV, student_logp_NV))
    _, expected_NV = twin(mirror(loss), teacher_NV, student_NV, NO_TARGETS.numpy())
    assert teacher_logits_NV.grad is not None
    assert relative_error(teacher_logits_NV.grad, expected_NV) <= 1e-5


def test_half_precision_log_probs_are_summed_in_float32() -> None:
    a_NV, b_NV = random_logp(2, 5000, seed=1).bfloat16(), random_logp(2, 5000, seed=2).bfloat16()
    for loss in DIVERGENCES:
        loss_N = loss(tokens(a_NV, b_NV, NO_TARGETS))
        assert loss_N.dtype == torch.float32
        assert torch.equal(loss_N, loss(tokens(a_NV.float(), b_NV.float(), NO_TARGETS)))


# ---- zero probabilities

patterns = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(patterns, st.integers(0, 2**31 - 1))
@pytest.mark.parametrize("loss", [NLL(), *DIVERGENCES], ids=repr)
def test_gradients_are_finite_and_values_true_for_every_pattern_of_zero_probabilities(
    loss: TokenLoss, pattern: list[tuple[bool, bool]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # One id more, with mass in both, because a distribution without any mass is none.
    student_zero, teacher_zero = torch.tensor([[*column, False] for column in zip(*pattern, strict=True)])
    student_logits_V = 3 * torch.randn(len(student_zero), generator=generator).masked_fill(student_zero, -math.inf)
    teacher_logits_V = 3 * torch.randn(len(teacher_zero), generator=generator).masked_fill(teacher_zero, -math.inf)
    student_logits_V.requires_grad_()
    target_N = torch.zeros(1, dtype=torch.long)
    student_logp_NV = torch.log_softmax(student_logits_V[None], -1)
    loss_N = loss(tokens(student_logp_NV, torch.log_softmax(teacher_logits_V[None], -1), target_N))
    loss_N.sum().backward()

    assert student_logits_V.grad is not None
    assert student_logits_V.grad.isfinite().all()
    student_NV = oracle.softmax(student_logits_V.detach()[None].double().numpy())
    teacher_NV = oracle.softmax(teacher_logits_V[None].double().numpy())
    with np.errstate(all="ignore"):
        expected_N, _ = twin(loss, student_NV, teacher_NV, target_N.numpy())
    np.testing.assert_allclose(loss_N.detach().numpy(), expected_N, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_total_variation_is_true_with_zero_probabilities_too() -> None:
    student_V, teacher_V = torch.tensor([0.0, 0.5, 0.2, 0.3, 0.0]), torch.tensor([0.1, 0.0, 0.6, 0.3, 0.0])
    logits_NV = student_V[None].log().requires_grad_()
    TotalVariation()(tokens(torch.log_softmax(logits_NV, -1), teacher_V[None].log(), NO_TARGETS)).sum().backward()
    expected_NV = oracle.total_variation_grad(student_V[None].double().numpy(), teacher_V[None].double().numpy())
    # By hand: slopes (-, 1/2, -1/2, 0, 0), mean 1/2 (0.5 - 0.2) = 0.15
    np.testing.assert_allclose(expected_NV, [[0.0, 0.175, -0.13, -0.045, 0.0]], atol=1e-7)
    assert logits_NV.grad is not None
    np.testing.assert_allclose(logits_NV.grad.numpy(), expected_NV, atol=1e-7)


def test_ids_that_neither_gives_mass_change_nothing() -> None:
    student_NV, teacher_NV = random_logp(3, 6, seed=1), random_logp(3, 6, seed=2)
    padding_NV = torch.full((3, 2), -math.inf)
    for loss in DIVERGENCES:
        padded_N = loss(
            tokens(torch.cat([student_NV, padding_NV], -1), torch.cat([teacher_NV, padding_NV], -1), NO_TARGETS)
        )
        torch.testing.assert_close(padded_N, loss(tokens(student_NV, teacher_NV, NO_TARGETS)), rtol=1e-6, atol=0)


def test_a_broken_student_is_not_hidden() -> None:
    broken_NV = random_logp(2, 6)
    broken_NV[0, 3] = math.nan
    for loss in DIVERGENCES:
        assert loss(tokens(broken_NV, random_logp(2, 6, seed=1), NO_TARGETS)).isnan().tolist() == [True, False]


# ---- use


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_jsd_refuses_a_beta_outside_the_open_interval(beta: float) -> None:
    with pytest.raises(ConfigError) as caught:
        JSD(beta)
    assert str(caught.value) == (
        f"error[SKD-T09] objective.loss.beta: beta is {beta}, and the generalised JSD is defined for 0 < beta < 1; "
        "take a beta inside, or name the divergence you mean at the end: forward_kl or reverse_kl"
    )


@pytest.mark.parametrize("beta", [Schedule(0.0, 0.5), Schedule(0.5, 1.0)])
def test_jsd_refuses_a_schedule_with_an_end_outside(beta: Schedule) -> None:
    with pytest.raises(ConfigError, match=r"beta is (0|1)\.0, and the generalised JSD"):
        JSD(beta)


@pytest.mark.parametrize(("skewed", "plain"), [(SkewKL, "forward_kl"), (SkewReverseKL, "reverse_kl")])
@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan, Schedule(0.1, 0.0)])
def test_skew_divergences_refuse_an_alpha_outside_the_open_interval(
    skewed: type[SkewKL] | type[SkewReverseKL], plain: str, alpha: Number
) -> None:
    with pytest.raises(ConfigError) as caught:
        skewed(alpha)
    assert str(caught.value) == (
        f"error[SKD-T09] objective.loss.alpha: alpha is {ends(alpha)[-1]}, and the skew divergences are defined for "
        f"0 < alpha < 1; take an alpha inside, or write {plain}, which is the limit at 0"
    )


# ---- parameters that change


@pytest.mark.parametrize("loss", [JSD, SkewKL, SkewReverseKL])
def test_a_parameter_over_training_is_the_constant_of_that_moment(
    loss: type[JSD] | type[SkewKL] | type[SkewReverseKL],
) -> None:
    student_NV, teacher_NV = random_logp(4, 9, seed=1), random_logp(4, 9, seed=2)
    for progress, value in [(0.0, 0.9), (0.25, 0.7), (1.0, 0.1)]:
        scheduled_N = loss(Schedule(0.9, 0.1))(tokens(student_NV, teacher_NV, NO_TARGETS, progress=progress))
        constant_N = loss(value)(tokens(student_NV, teacher_NV, NO_TARGETS))
        torch.testing.assert_close(scheduled_N, constant_N, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [JSD, SkewKL, SkewReverseKL])
def test_a_parameter_along_the_response_is_a_constant_of_each_token(
    loss: type[JSD] | type[SkewKL] | type[SkewReverseKL],
) -> None:
    """In value and gradient, with one token after the end of the schedule."""
    teacher_NV, logits_NV = random_logp(6, 9, seed=2), random_logp(6, 9, seed=1).requires_grad_()
    data = tokens(torch.log_softmax(logits_NV, -1), teacher_NV, NO_TARGETS, progress=0.3)
    scheduled_N = loss(Schedule(0.9, 0.1, over="response", tokens=4))(data)
    (grad_NV,) = torch.autograd.grad(scheduled_N.sum(), logits_NV, retain_graph=True)
    for token, value in enumerate([0.9, 0.7, 0.5, 0.3, 0.1, 0.1]):
        constant_N = loss(value)(data)
        (constant_grad_NV,) = torch.autograd.grad(constant_N.sum(), logits_NV, retain_graph=True)
        torch.testing.assert_close(scheduled_N[token], constant_N[token], rtol=1e-5, atol=0)
        torch.testing.assert_close(grad_NV[token], constant_grad_NV[token], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_a_divergence_without_a_teacher_is_a_fault_of_the_caller(loss: TokenLoss) -> None:
    assert loss.needs_teacher
    with pytest.raises(ValueError, match="teacher_logp_NV is None"):
        loss(tokens(random_logp(1, 3), None, NO_TARGETS))


def test_losses_are_values() -> None:
    assert JSD(0.3) == JSD(0.3) != JSD(0.4)
    assert repr(JSD(0.3)) == "JSD(beta=0.3)"
    assert not NLL().needs_teacher
    assert not any(loss.needs_rollout_logp for loss in [NLL(), *DIVERGENCES])

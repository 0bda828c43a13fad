"""Weights of tokens, their sum, and what an Objective refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import (
    JSD,
    NLL,
    ByAuthor,
    ForwardKL,
    Objective,
    PerAuthor,
    Plain,
    PolicyGradient,
    Taid,
    TeacherTopK,
    Tokens,
    Veto,
)
from tests.objectives.tokens import tokens

LENGTHS = [3, 0, 1, 5]


def ones(lengths: list[int]) -> list[Tensor]:
    return [torch.ones(length) for length in lengths]


def test_token_reduction_counts_every_token_alike() -> None:
    weights, total = Objective().reduced(ones(LENGTHS))
    assert [w.tolist() for w in weights] == [[1.0] * 3, [], [1.0], [1.0] * 5]
    assert total == 9.0


def test_token_reduction_leaves_weights_as_they_are() -> None:
    weights, total = Objective().reduced([torch.tensor([0.5, 0.0, 2.0]), torch.zeros(2)])
    assert [w.tolist() for w in weights] == [[0.5, 0.0, 2.0], [0.0, 0.0]]
    assert total == 2.5


def test_sequence_reduction_counts_every_response_with_tokens_alike() -> None:
    weights, total = Objective(reduction="sequence").reduced(ones(LENGTHS))
    assert [len(w) for w in weights] == LENGTHS
    assert [w.sum().item() for w in weights] == pytest.approx([1.0, 0.0, 1.0, 1.0])
    assert torch.equal(weights[0], torch.full((3,), 1 / 3))
    assert total == 3.0


def test_sequence_reduction_is_the_weighted_mean_of_each_response_and_a_response_without_weight_is_none() -> None:
    given = [torch.tensor([0.5, 0.0, 1.5]), torch.zeros(4), torch.tensor([0.0, 0.1]), torch.zeros(0)]
    weights, total = Objective(reduction="sequence").reduced(given)
    assert [w.tolist() for w in weights] == [[0.25, 0.0, 0.75], [0.0] * 4, [0.0, 1.0], []]
    assert total == 2.0


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_tokens_outside_the_mask_are_as_if_they_were_not_there(reduction: str) -> None:
    """A mask is a factor 0 or 1 of the weights: what is left gets the weights it has alone."""
    objective = Objective(reduction=reduction)  # type: ignore[arg-type]
    given = [torch.tensor([1.0, 0.5, 2.0, 1.0]), torch.tensor([3.0, 1.0]), torch.ones(2)]
    masks = [torch.tensor([True, False, True, True]), torch.tensor([False, True]), torch.tensor([False, False])]
    masked, total = objective.reduced([weight * mask for weight, mask in zip(given, masks, strict=True)])
    alone, total_alone = objective.reduced([weight[mask] for weight, mask in zip(given, masks, strict=True)])
    assert total == total_alone
    for weight, mask, expected in zip(masked, masks, alone, strict=True):
        assert torch.equal(weight[mask], expected)
        assert (weight[~mask] == 0).all()


@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize("scale", [1.0, 0.0, 0.3])
def test_the_total_is_the_sum_of_the_weights_and_adds_up_over_batches(reduction: str, scale: float) -> None:
    objective = Objective(reduction=reduction)  # type: ignore[arg-type]
    given = [torch.rand(length, generator=torch.Generator().manual_seed(length)) for length in LENGTHS]
    given[0] = given[0] * scale
    weights, total = objective.reduced(given)
    assert torch.cat(weights).dtype == torch.float32
    assert torch.cat(weights).sum().item() == pytest.approx(total)
    for cut in range(len(given) + 1):
        parts = [objective.reduced(given[:cut]), objective.reduced(given[cut:])]
        assert sum(part for _, part in parts) == pytest.approx(total, rel=1e-12)
        joined = [weight for part, _ in parts for weight in part]
        assert all(torch.equal(a, b) for a, b in zip(joined, weights, strict=True))


def test_the_total_of_many_tokens_is_summed_in_float64() -> None:
    """2^24 + 1 is no float32 number."""
    _, total = Objective().reduced([torch.full((2**8,), 2.0**16), torch.ones(1)])
    assert total == 2**24 + 1


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_no_responses_have_no_weight(reduction: str) -> None:
    objective = Objective(reduction=reduction)  # type: ignore[arg-type]
    assert objective.reduced([]) == ([], 0.0)
    weights, total = objective.reduced(ones([0, 0]))
    assert [len(weight) for weight in weights] == [0, 0]
    assert total == 0.0


def test_the_default_is_the_papers_divergence_to_the_teacher_itself_over_all_tokens() -> None:
    assert Objective() == Objective(ForwardKL(), Plain(), ByAuthor(1.0, 1.0, 1.0), 1.0, "token")


def test_token_loss_and_weights_decide_about_the_teacher() -> None:
    assert Objective(JSD(0.3)).needs_teacher
    assert Objective(PolicyGradient()).needs_teacher
    assert Objective(PerAuthor(NLL(), NLL(), JSD())).needs_teacher
    assert Objective(NLL(), weights=TeacherTopK()).needs_teacher
    assert not Objective(NLL()).needs_teacher
    assert not Objective(NLL(), target=Veto()).needs_teacher


def test_only_the_plain_forward_kl_is_the_kl_of_the_logs() -> None:
    assert Objective().is_forward_kl
    for other in (Objective(ForwardKL(), Veto()), Objective(JSD()), Objective(PerAuthor(*3 * [ForwardKL()]))):
        assert not other.is_forward_kl


def test_the_loss_is_taken_to_the_target_and_the_caller_keeps_the_teacher() -> None:
    logp_NV = torch.log_softmax(torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)), -1)
    data: Tokens = tokens(logp_NV[0], logp_NV[1], torch.arange(4))
    loss_N = Objective(ForwardKL(), Taid(0.5)).token_losses(data)
    expected_N = ForwardKL()(tokens(logp_NV[0], Taid(0.5)(data), torch.arange(4)))
    assert torch.equal(loss_N, expected_N)
    assert data.teacher_logp_NV is not None
    assert torch.equal(data.teacher_logp_NV, logp_NV[1])
    assert torch.equal(Objective(NLL(), Veto()).token_losses(tokens(logp_NV[0], None, torch.arange(4))), NLL()(data))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_must_be_finite_and_positive(temperature: float) -> None:
    with pytest.raises(ConfigError) as caught:
        Objective(temperature=temperature)
    assert str(caught.value) == (
        f"error[SKD-T10] objective.temperature: the loss temperature is {temperature}, and it must be finite and "
        "above 0; set it to 1 for the plain loss"
    )


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Objective(temperature=0.0, reduction="mean")  # type: ignore[arg-type]
    assert [problem.place for problem in caught.value.problems] == ["objective.temperature", "objective.reduction"]
    assert "'mean', and only 'token' and 'sequence' exist" in str(caught.value)

"""Weights of tokens, their sum, and what an Objective refuses."""

from __future__ import annotations

import math

import pytest
import torch

from skd.errors import ConfigError
from skd.objectives import JSD, NLL, ForwardKL, Objective

LENGTHS = [3, 0, 1, 5]


def test_token_reduction_counts_every_token_alike() -> None:
    objective = Objective()
    weights = objective.token_weights(LENGTHS)
    assert [w.tolist() for w in weights] == [[1.0] * 3, [], [1.0], [1.0] * 5]
    assert objective.total_weight(LENGTHS) == 9.0


def test_sequence_reduction_counts_every_response_with_tokens_alike() -> None:
    objective = Objective(reduction="sequence")
    weights = objective.token_weights(LENGTHS)
    assert [len(w) for w in weights] == LENGTHS
    assert [w.sum().item() for w in weights] == pytest.approx([1.0, 0.0, 1.0, 1.0])
    assert torch.equal(weights[0], torch.full((3,), 1 / 3))
    assert objective.total_weight(LENGTHS) == 3.0


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_total_weight_is_the_sum_of_the_weights_and_adds_up_over_batches(reduction: str) -> None:
    objective = Objective(reduction=reduction)  # type: ignore[arg-type]
    weights = torch.cat(objective.token_weights(LENGTHS))
    assert weights.dtype == torch.float32
    assert weights.sum().item() == pytest.approx(objective.total_weight(LENGTHS))
    parts = objective.total_weight(LENGTHS[:1]) + objective.total_weight(LENGTHS[1:])
    assert parts == objective.total_weight(LENGTHS)


def test_no_responses_have_no_weight() -> None:
    assert Objective().token_weights([]) == []
    assert Objective().total_weight([]) == 0.0


def test_the_default_is_the_papers_divergence_and_the_token_loss_decides_about_the_teacher() -> None:
    assert Objective().token_loss == ForwardKL()
    assert Objective(JSD(0.3)).needs_teacher
    assert not Objective(NLL()).needs_teacher


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

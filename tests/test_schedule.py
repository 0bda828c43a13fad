"""Schedules: their shapes, scales and ways, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from skd.errors import ConfigError
from skd.schedule import Schedule, ends, value_at

NOWHERE = torch.arange(0)


def over_training(schedule: Schedule, shares: list[float]) -> list[float]:
    values = [schedule.at(share, NOWHERE) for share in shares]
    assert all(isinstance(value, float) for value in values)
    return [float(value) for value in values]


def test_linear_moves_in_equal_steps() -> None:
    assert over_training(Schedule(1.0, 0.0), [0.0, 0.25, 0.5, 1.0]) == [1.0, 0.75, 0.5, 0.0]
    assert over_training(Schedule(10, 50), [0.0, 0.1, 1.0]) == pytest.approx([10, 14, 50])


def test_cosine_is_slow_at_both_ends() -> None:
    values = over_training(Schedule(2.0, 0.0, shape="cosine"), [0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0])
    assert values == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.5, 1.0, 1 - math.sqrt(0.5), 0.0])


def test_log_scale_multiplies_by_equal_factors() -> None:
    assert over_training(Schedule(1.0, 1e-4, scale="log"), [0.0, 0.25, 0.5, 1.0]) == pytest.approx([1, 0.1, 0.01, 1e-4])
    half = over_training(Schedule(1.0, 1e-4, shape="cosine", scale="log"), [0.0, 1 / 3, 0.5, 1.0])
    assert half == pytest.approx([1, 0.1, 0.01, 1e-4])


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("start", "end"), [(0.3, 0.1), (0.1, 0.7), (1.0, 0.0), (0.4, 1.0), (5.0, 50.0), (0.2, 0.2)])
def test_both_ends_are_met_exactly_and_never_passed(shape: str, start: float, end: float) -> None:
    schedule = Schedule(start, end, shape=shape)  # type: ignore[arg-type]
    values = over_training(schedule, [step / 50 for step in range(51)])
    assert (values[0], values[-1]) == (start, end)
    low, high = sorted((start, end))
    assert all(low * (1 - 1e-15) <= value <= high * (1 + 1e-15) for value in values)
    assert values == sorted(values, reverse=start > end) or start == end


def test_along_the_response_the_end_is_reached_after_its_tokens_and_kept() -> None:
    schedule = Schedule(1.0, 0.0, over="response", tokens=4)
    values = schedule.at(0.9, torch.tensor([0, 1, 2, 4, 5, 1000]))
    assert isinstance(values, torch.Tensor)
    assert values.dtype == torch.float64
    assert values.tolist() == [1.0, 0.75, 0.5, 0.0, 0.0, 0.0]


def test_along_the_response_the_training_does_not_count_and_the_shape_of_the_positions_is_kept() -> None:
    schedule = Schedule(1.0, 16.0, shape="cosine", over="response", tokens=8, scale="log")
    positions = torch.arange(12).reshape(3, 4)
    early, late = schedule.at(0.0, positions), schedule.at(1.0, positions)
    assert isinstance(early, torch.Tensor)
    assert isinstance(late, torch.Tensor)
    assert torch.equal(early, late)
    assert early.shape == (3, 4)
    assert early[1, 0].item() == pytest.approx(4.0)
    assert Schedule(1.0, 0.0, over="response", tokens=4).at(0.5, NOWHERE).shape == (0,)  # type: ignore[union-attr]


def test_over_training_the_position_does_not_count() -> None:
    schedule = Schedule(1.0, 0.0)
    assert schedule.at(0.25, torch.arange(5)) == schedule.at(0.25, NOWHERE) == 0.75


def test_a_constant_is_a_plain_number() -> None:
    assert value_at(0.3, 0.7, torch.arange(5)) == 0.3
    assert value_at(Schedule(1.0, 0.0), 0.25, NOWHERE) == 0.75
    assert ends(0.3) == (0.3,)
    assert ends(Schedule(0.3, 0.1)) == (0.3, 0.1)
    assert Schedule(0.3, 0.1) == Schedule(0.3, 0.1) != Schedule(0.3, 0.2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"over": "response"},
            "error[SKD-C10] schedule: runs over the response and tokens is None; "
            "give tokens to a schedule along the response, and to no other",
        ),
        (
            {"tokens": 5},
            "error[SKD-C10] schedule: runs over the training and tokens is 5; "
            "give tokens to a schedule along the response, and to no other",
        ),
        (
            {"over": "response", "tokens": 0},
            "error[SKD-C07] schedule: ends after 0 tokens; it must be 1 or more; write for example tokens: 200",
        ),
        (
            {"scale": "log"},
            "error[SKD-C07] schedule: is on a log scale from 1.0 to 0.0; both must be above 0; "
            "write scale: linear, or positive ends",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule(1.0, 0.0, **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_all_problems_of_a_schedule_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule(-1.0, 1.0, over="response", scale="log")
    assert [problem.code for problem in caught.value.problems] == ["SKD-C10", "SKD-C07"]

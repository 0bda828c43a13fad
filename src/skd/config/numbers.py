"""Numbers of a config that may change over the training or along a response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Tag, model_validator
from pydantic_core import PydanticCustomError

from skd.config.fields import Count, InRange, Integer, Real, Section

__all__ = ["NotNegative", "OpenShare", "Rank", "ScheduleConfig", "ScheduledShare"]


class ScheduleConfig(Section):
    """A number that changes from start to end; it can stand wherever a number is said to."""

    start: Real
    """Value at the first step, or at the first token."""
    end: Real
    """Value at the last step, or after that many tokens."""
    shape: Literal["linear", "cosine"] = "linear"
    """Course between the two."""
    over: Literal["training", "response"] = "training"
    """Over the steps of the run, or along each response."""
    tokens: Count | None = None
    """Along a response: after how many tokens end is reached; needed there, null over training."""
    scale: Literal["linear", "log"] = "linear"
    """log moves the logarithm of the number; both ends above 0."""

    @model_validator(mode="after")
    def _consistent(self) -> ScheduleConfig:
        if (self.tokens is None) == (self.over == "response"):
            expected = "tokens with over: response, and only there"
            raise PydanticCustomError("bad_value", "{expected}", {"expected": expected})
        if self.scale == "log" and not (self.start > 0 and self.end > 0):
            raise PydanticCustomError("bad_value", "{expected}", {"expected": "ends above 0 on a log scale"})
        return self


@dataclass(frozen=True)
class BothEnds:
    """Refuses a schedule that leaves a range; it stays between its ends."""

    range: InRange

    def __call__(self, schedule: ScheduleConfig) -> ScheduleConfig:
        if not (self.range.holds(schedule.start) and self.range.holds(schedule.end)):
            expected = f"start and end each to be {self.range}"
            raise PydanticCustomError("bad_value", "{expected}", {"expected": expected})
        return schedule


def _tag(value: Any) -> str:
    return "schedule" if isinstance(value, (Mapping, ScheduleConfig)) else "number"


_SHARE = InRange(0, 1)
_OPEN_SHARE = InRange(0, 1, open_low=True, open_high=True)
_NOT_NEGATIVE = InRange(0)
_RANK = InRange(1, 2**31 - 1)

ScheduledShare = Annotated[
    Annotated[Real, AfterValidator(_SHARE), Tag("number")]
    | Annotated[ScheduleConfig, AfterValidator(BothEnds(_SHARE)), Tag("schedule")],
    Discriminator(_tag),
]
"""A number in [0, 1], or a schedule within."""
OpenShare = Annotated[
    Annotated[Real, AfterValidator(_OPEN_SHARE), Tag("number")]
    | Annotated[ScheduleConfig, AfterValidator(BothEnds(_OPEN_SHARE)), Tag("schedule")],
    Discriminator(_tag),
]
"""A number in (0, 1), or a schedule within."""
NotNegative = Annotated[
    Annotated[Real, AfterValidator(_NOT_NEGATIVE), Tag("number")]
    | Annotated[ScheduleConfig, AfterValidator(BothEnds(_NOT_NEGATIVE)), Tag("schedule")],
    Discriminator(_tag),
]
"""A number of at least 0, or a schedule within."""
Rank = Annotated[
    Annotated[Integer, AfterValidator(_RANK), Tag("number")]
    | Annotated[ScheduleConfig, AfterValidator(BothEnds(_RANK)), Tag("schedule")],
    Discriminator(_tag),
]
"""A whole number of at least 1, or a schedule within, whose values are rounded."""

"""Numbers of a config that may change over the training or along a response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Tag, model_validator
from pydantic_core import PydanticCustomError

from skd.config.fields import MAX_INT32, Count, InRange, Integer, Real, Section, refused

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
        if self.over == "response" and self.tokens is None:
            raise refused(
                "over", "is response, and tokens is missing", "add tokens: the number after which end is reached"
            )
        if self.over == "training" and self.tokens is not None:
            raise refused("tokens", f"is {self.tokens}, and over is training", "write over: response, or tokens: null")
        for key, value in self.ends:
            if self.scale == "log" and value <= 0:
                raise refused(key, f"is {value:g} on a log scale", "write a number above 0, or scale: linear")
        return self

    @property
    def ends(self) -> tuple[tuple[str, float], ...]:
        """Its first and its last value, each with its key."""
        return ("start", self.start), ("end", self.end)


@dataclass(frozen=True)
class Within(InRange):
    """The range of a number that may be a schedule, which stays between its ends."""

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, ScheduleConfig):
            return super().__call__(value)
        for key, end in value.ends:
            if not self.holds(end):
                raise PydanticCustomError("out_of_range", "{expected}", {"key": key, "expected": str(self)})
        return value


def _tag(value: Any) -> str:
    return "schedule" if isinstance(value, (Mapping, ScheduleConfig)) else "number"


_Scheduled = Annotated[ScheduleConfig, Tag("schedule")]
_Number = Annotated[Annotated[Real, Tag("number")] | _Scheduled, Discriminator(_tag)]
_Whole = Annotated[Annotated[Integer, Tag("number")] | _Scheduled, Discriminator(_tag)]

ScheduledShare = Annotated[_Number, AfterValidator(Within(0, 1))]
"""A number in [0, 1], or a schedule within."""
OpenShare = Annotated[_Number, AfterValidator(Within(0, 1, open_low=True, open_high=True))]
"""A number in (0, 1), or a schedule within."""
NotNegative = Annotated[_Number, AfterValidator(Within(0))]
"""A number of at least 0, or a schedule within."""
Rank = Annotated[_Whole, AfterValidator(Within(1, MAX_INT32))]
"""A whole number of at least 1, or a schedule within, whose values are rounded."""

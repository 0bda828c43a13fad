"""Numbers that change over training, or along a response. A schedule can stand wherever a gate, an objective or a
policy takes a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem

__all__ = ["Number", "Schedule", "ends", "value_at"]


@dataclass(frozen=True)
class Schedule:
    """From ``start`` to ``end``; a constant is a plain number.

    Raises ConfigError for a schedule along the response without its length or with one below 1, or on a log scale
    through 0.
    """

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"
    over: Literal["training", "response"] = "training"
    """``training``: from the first optimiser step to the last. ``response``: from a response's first token on."""
    tokens: int | None = None
    """Along a response: the number of tokens after which ``end`` is reached; it stays there."""
    scale: Literal["linear", "log"] = "linear"
    """``log`` moves the logarithm, so that equal stretches multiply by equal factors."""

    def __post_init__(self) -> None:
        problems = []
        if (self.tokens is None) == (self.over == "response"):
            found = f"runs over the {self.over} and tokens is {self.tokens}"
            remedy = "give tokens to a schedule along the response, and to no other"
            problems.append(Problem("SKD-C10", "schedule", found, remedy))
        if self.tokens is not None and self.tokens < 1:
            found = f"ends after {self.tokens} tokens; it must be 1 or more"
            problems.append(Problem("SKD-C07", "schedule", found, "write for example tokens: 200"))
        if self.scale == "log" and not (self.start > 0 and self.end > 0):
            found = f"is on a log scale from {self.start} to {self.end}; both must be above 0"
            problems.append(Problem("SKD-C07", "schedule", found, "write scale: linear, or positive ends"))
        if problems:
            raise ConfigError(problems)

    def at(self, progress: float, position: Tensor) -> float | Tensor:
        """The value at a share of the training in [0, 1], and for tokens at ``position`` (int64, from 0).

        A float over training; float64 of the shape of ``position`` along the response.
        """
        if self.tokens is None:
            return float(self._between(torch.tensor(progress, dtype=torch.float64)))
        return self._between((position.double() / self.tokens).clamp(max=1.0))

    def _between(self, share: Tensor) -> Tensor:
        if self.shape == "cosine":
            share = 0.5 * (1.0 - torch.cos(math.pi * share))
        # A weighted mean and not start + share x difference, which would miss the end by a rounding error.
        if self.scale == "log":
            return torch.exp((1.0 - share) * math.log(self.start) + share * math.log(self.end))
        return (1.0 - share) * self.start + share * self.end


Number = float | Schedule
"""A constant, or a number that changes."""


def value_at(number: Number, progress: float, position: Tensor) -> float | Tensor:
    """The value of a number; see ``Schedule.at``."""
    return number.at(progress, position) if isinstance(number, Schedule) else number


def ends(number: Number) -> tuple[float, ...]:
    """The values between which the number stays."""
    return (number.start, number.end) if isinstance(number, Schedule) else (number,)

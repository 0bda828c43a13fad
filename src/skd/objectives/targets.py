"""Targets: the distribution that the student is told to become, made of the teacher's and, for some, its own.

A target carries no gradient: it is recomputed from the student at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.objectives.tokens import Tokens
from skd.schedule import Number, Schedule, ends

__all__ = ["Plain", "Taid", "Target", "Veto"]


class Target(Protocol):
    """Makes the target of a divergence. Implementations are frozen dataclasses."""

    def __call__(self, tokens: Tokens) -> Tensor:
        """Normalised float32 log-probs [N, V], without a gradient."""
        ...


@dataclass(frozen=True)
class Plain:
    """The teacher itself."""

    def __call__(self, tokens: Tokens) -> Tensor:
        return tokens.given_teacher()


@dataclass(frozen=True)
class Veto:
    """T x S^beta, normalised: the student's own doubt vetoes tokens it finds improbable (Jang et al., 2026, arXiv
    2601.07155). beta = 0 is the teacher; the paper lets it fall over training.

    Raises ConfigError for a beta that is negative or not finite.
    """

    beta: Number = Schedule(1.0, 0.0)  # noqa: RUF009 - a frozen value

    def __post_init__(self) -> None:
        _require("beta", self.beta, high=math.inf)

    def __call__(self, tokens: Tokens) -> Tensor:
        return _geometric(tokens, 1.0, tokens.value(self.beta))


@dataclass(frozen=True)
class Taid:
    """T^t x S^(1-t), normalised, with t rising to 1: the target moves from the student to the teacher (Shing et al.,
    ICLR 2025, arXiv 2501.16937). t follows the schedule; the paper's additional adaptive step is not made.

    Raises ConfigError for a t outside [0, 1].
    """

    t: Number = Schedule(0.4, 1.0)  # noqa: RUF009 - a frozen value

    def __post_init__(self) -> None:
        _require("t", self.t, high=1.0)

    def __call__(self, tokens: Tokens) -> Tensor:
        t = tokens.value(self.t)
        return _geometric(tokens, t, 1.0 - t)


def _geometric(tokens: Tokens, teacher_power: float | Tensor, student_power: float | Tensor) -> Tensor:
    """T^a x S^b [N, V], normalised. A power of 0 leaves a factor out, zero probabilities included.

    With b = 0 it is T to the last bit, for then a is 1. It is T too where the product has no mass, because every id
    lacks it in one of the two.
    """
    teacher_logp_NV = tokens.given_teacher()
    student_logp_NV = tokens.student_logp_NV.detach().float()
    logits_NV = _power(teacher_logp_NV, teacher_power) + _power(student_logp_NV, student_power)
    total_N1 = logits_NV.logsumexp(-1, keepdim=True)
    is_teacher_N1 = (total_N1 == -math.inf) | (_column(student_power, logits_NV) == 0.0)
    return torch.where(is_teacher_N1, teacher_logp_NV, logits_NV - total_N1)


def _power(logp_NV: Tensor, power: float | Tensor) -> Tensor:
    power_N1 = _column(power, logp_NV)
    return torch.where(power_N1 == 0.0, 0.0, logp_NV * power_N1)


def _column(power: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(power, dtype=torch.float32, device=like.device).reshape(-1, 1)


def _require(name: str, number: Number, high: float) -> None:
    for value in ends(number):
        if not (0.0 <= value <= high and math.isfinite(value)):
            found = f"{name} is {value}; it must be {'0 or more' if high == math.inf else f'in [0, {high:g}]'}"
            raise ConfigError(Problem("SKD-C07", f"objective.target.{name}", found, "leave it out for the paper's"))

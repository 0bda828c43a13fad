"""Token weights: how much each token counts, decided before any loss is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.objectives.teacher import TeacherView
from skd.objectives.tokens import ResponseTokens

__all__ = ["ByAuthor", "TeacherTopK", "TokenWeights"]

_CHUNK = 256


class TokenWeights(Protocol):
    """Gives every token its weight. Implementations are frozen dataclasses."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher is asked."""
        ...

    def __call__(self, tokens: ResponseTokens, teacher: TeacherView | None) -> Tensor:
        """float32 [N], finite and not negative."""
        ...


@dataclass(frozen=True)
class ByAuthor:
    """One weight for the tokens of each author; 1 for all is the plain mean.

    Raises ConfigError for a weight that is negative or not finite.
    """

    data: float = 1.0
    student: float = 1.0
    teacher: float = 1.0
    needs_teacher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = [
            Problem("SKD-C07", f"objective.weights.{name}", f"is {weight}; it must be 0 or more", "1 is usual")
            for name, weight in (("data", self.data), ("student", self.student), ("teacher", self.teacher))
            if not 0.0 <= weight < math.inf
        ]
        if problems:
            raise ConfigError(problems)

    def __call__(self, tokens: ResponseTokens, teacher: TeacherView | None) -> Tensor:
        by_author = torch.tensor([self.data, self.student, self.teacher], device=tokens.author_N.device)
        return by_author[tokens.author_N.long()]


@dataclass(frozen=True)
class TeacherTopK:
    """1 for a token among the teacher's ``k`` most probable, ``rejected`` for every other (SelecTKD, Huang et al.,
    2025, arXiv 2510.24021). The token tested is the one written.

    Raises ConfigError for a ``k`` below 1 or a ``rejected`` outside [0, 1].
    """

    k: int = 5
    rejected: float = 0.0
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        problems = []
        if self.k < 1:
            found = f"is {self.k}; it must be 1 or more"
            problems.append(Problem("SKD-C07", "objective.weights.k", found, "write for example 5"))
        if not 0.0 <= self.rejected <= 1.0:
            found = f"is {self.rejected}; it must be in [0, 1]"
            problems.append(Problem("SKD-C07", "objective.weights.rejected", found, "0 leaves such tokens out"))
        if problems:
            raise ConfigError(problems)

    def __call__(self, tokens: ResponseTokens, teacher: TeacherView | None) -> Tensor:
        if len(tokens) == 0:
            return torch.zeros(0, device=tokens.ids_N.device)
        if teacher is None:
            raise ValueError("these weights ask the teacher, and teacher is None")
        rows = [slice(start, start + _CHUNK) for start in range(0, len(tokens), _CHUNK)]
        among_N = torch.cat([teacher.among_top(tokens.ids_N[chunk], self.k, chunk) for chunk in rows])
        return torch.where(among_N, 1.0, self.rejected)

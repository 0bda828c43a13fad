"""Several losses at once: each author's tokens learn by a loss of their own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from skd.objectives.tokens import TokenLoss, Tokens
from skd.types import DATA, STUDENT, TEACHER

__all__ = ["PerAuthor"]


@dataclass(frozen=True)
class PerAuthor:
    """The loss of a token by who wrote it."""

    data: TokenLoss
    student: TokenLoss
    teacher: TokenLoss

    @property
    def _losses(self) -> dict[int, TokenLoss]:
        return {DATA: self.data, STUDENT: self.student, TEACHER: self.teacher}

    @property
    def needs_teacher(self) -> bool:
        """Whether one of them does."""
        return any(loss.needs_teacher for loss in self._losses.values())

    @property
    def needs_rollout_logp(self) -> bool:
        """Whether one of them does."""
        return any(loss.needs_rollout_logp for loss in self._losses.values())

    def __call__(self, tokens: Tokens) -> Tensor:
        """Each loss sees only its own tokens."""
        loss_N = tokens.student_written_N.new_zeros(len(tokens.response))
        for author, loss in self._losses.items():
            index_n = (tokens.response.author_N == author).nonzero().squeeze(-1)
            if len(index_n):
                loss_N = loss_N.index_put((index_n,), loss(tokens.at(index_n)))
        return loss_N

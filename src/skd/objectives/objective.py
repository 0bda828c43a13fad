"""The objective of a run: a token loss, its temperature, and how tokens are weighted into one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.objectives.divergences import ForwardKL, TokenLoss

__all__ = ["Objective", "Reduction"]

Reduction = Literal["token", "sequence"]


@dataclass(frozen=True)
class Objective:
    """What is learned from a response. The loss of a step is sum(weight x token loss) / sum(total_weight), where both
    sums run over all responses of the global batch: all micro-batches, all ranks.

    Raises ConfigError for a temperature that is not finite and positive, or an unknown reduction.
    """

    token_loss: TokenLoss = field(default_factory=ForwardKL)
    temperature: float = 1.0
    """Divides the logits of student and teacher alike. No factor T^2 is applied: at T other than 1 the gradient
    shrinks by about T^2, and the learning rate is the place to answer that."""
    reduction: Reduction = "token"
    """``token``: every token of the global batch counts alike. ``sequence``: mean per response, then over responses
    (the paper's)."""

    def __post_init__(self) -> None:
        problems = []
        if not (math.isfinite(self.temperature) and self.temperature > 0.0):
            found = f"the loss temperature is {self.temperature}, and it must be finite and above 0"
            problems.append(Problem("SKD-T10", "objective.temperature", found, "set it to 1 for the plain loss"))
        if self.reduction not in get_args(Reduction):
            found = f"the reduction is {self.reduction!r}, and only 'token' and 'sequence' exist"
            problems.append(Problem("SKD-T07", "objective.reduction", found, "choose one of the two"))
        if problems:
            raise ConfigError(problems)

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss reads the teacher's log-probabilities."""
        return self.token_loss.needs_teacher

    def token_weights(self, lengths: Sequence[int]) -> list[Tensor]:
        """The weight of each token of responses of these lengths: one float32 tensor [L] per response."""
        return [torch.full((length,), self._weight(length), dtype=torch.float32) for length in lengths]

    def total_weight(self, lengths: Sequence[int]) -> float:
        """The sum of those weights, exactly: tokens, or responses that have any. Adds up over batches and ranks."""
        return float(sum(lengths) if self.reduction == "token" else sum(length > 0 for length in lengths))

    def _weight(self, length: int) -> float:
        return 1.0 if self.reduction == "token" or length == 0 else 1.0 / length

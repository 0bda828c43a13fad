"""The objective of a run: target x token loss x token weights, and how tokens become one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.objectives.divergences import ForwardKL
from skd.objectives.targets import Plain, Target
from skd.objectives.tokens import TokenLoss, Tokens
from skd.objectives.weights import ByAuthor, TokenWeights

__all__ = ["Objective", "Reduction"]

Reduction = Literal["token", "sequence"]


@dataclass(frozen=True)
class Objective:
    """What is learned from a response. The loss of a step is sum(weight x token loss) / total weight, where both run
    over all responses of the global batch: all micro-batches, all ranks.

    Raises ConfigError for a temperature that is not finite and positive, or an unknown reduction.
    """

    token_loss: TokenLoss = field(default_factory=ForwardKL)
    target: Target = field(default_factory=Plain)
    weights: TokenWeights = field(default_factory=ByAuthor)
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
        """Whether loss or weights read the teacher's log-probabilities."""
        return self.token_loss.needs_teacher or self.weights.needs_teacher

    @property
    def is_forward_kl(self) -> bool:
        """Whether the token loss is the forward KL to the teacher itself, which the logs then need not compute."""
        return self.token_loss == ForwardKL() and self.target == Plain()

    def token_losses(self, tokens: Tokens) -> Tensor:
        """Float32 [N], unweighted."""
        if self.token_loss.needs_teacher:
            tokens = replace(tokens, teacher_logp_NV=self.target(tokens))
        return self.token_loss(tokens)

    def reduced(self, weights: Sequence[Tensor]) -> tuple[list[Tensor], float]:
        """The factor of each token's loss, [L] per response, and their total; totals add up over batches and ranks."""
        if self.reduction == "token":
            return list(weights), math.fsum(float(weight.double().sum()) for weight in weights)
        sums = [weight.sum() for weight in weights]
        means = [torch.where(total > 0, weight / total, weight) for weight, total in zip(weights, sums, strict=True)]
        return means, float(sum(bool(total > 0) for total in sums))

"""Losses that read two log-probs only, those of the token written: reverse KL estimated from the sample.

They are right in expectation where the student wrote the token by its own unwarped distribution (temperature 1,
top-p 1). With g the gradient of log S(y), the expected gradient of each is that of KL(S || T).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.objectives.tokens import Tokens

__all__ = ["PolicyGradient", "SampledReverseKL"]


class _Sampled:
    needs_teacher: ClassVar[bool] = True
    needs_rollout_logp: ClassVar[bool] = True


@dataclass(frozen=True)
class PolicyGradient(_Sampled):
    """-(log T(y) - log S_old(y)) x S(y) / S_old(y), clipped: reverse KL as a reward for the token written.

    The value is the k1 estimator of KL(S || T) (Schulman, 2020, http://joschu.net/blog/kl-approx.html), which may be
    negative for one token; the gradient is -(advantage) g. This is on-policy distillation with log-probs only (Lu et
    al., 2025, https://thinkingmachines.ai/blog/on-policy-distillation/). ``clip`` bounds the ratio on the side that
    helps, as in PPO (Schulman et al., 2017, arXiv 1707.06347). S_old is the student that sampled: the rollout's
    log-probs where they were kept, otherwise the student as it is now.

    Raises ConfigError for a ``clip`` that is not above 0.
    """

    clip: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0.0:
            found = f"clip is {self.clip}, and it must be above 0"
            raise ConfigError(Problem("SKD-C07", "objective.loss.clip", found, "0.2 is usual; null for no clipping"))

    def __call__(self, tokens: Tokens) -> Tensor:
        old_N = _old_logp(tokens)
        teacher_N, impossible_N = _teacher_written(tokens)
        advantage_N = teacher_N - old_N
        ratio_N = (tokens.student_written_N - old_N).exp()
        gain_N = advantage_N * ratio_N
        if self.clip is not None:
            gain_N = torch.minimum(gain_N, advantage_N * ratio_N.clamp(1.0 - self.clip, 1.0 + self.clip))
        return (-gain_N).masked_fill(impossible_N, math.inf)


@dataclass(frozen=True)
class SampledReverseKL(_Sampled):
    """The k3 estimator r - 1 - log r with r = T(y) / S(y): never negative, and of lower variance than k1.

    The ratio S / S_old in front, of value 1 on fresh samples, is differentiated too. Without it the expected gradient
    would be that of KL(T || S), not of KL(S || T) (Schulman, 2020, http://joschu.net/blog/kl-approx.html).
    """

    def __call__(self, tokens: Tokens) -> Tensor:
        teacher_N, impossible_N = _teacher_written(tokens)
        log_r_N = teacher_N - tokens.student_written_N
        ratio_N = (tokens.student_written_N - _old_logp(tokens)).exp()
        return (ratio_N * (torch.expm1(log_r_N) - log_r_N)).masked_fill(impossible_N, math.inf)


def _old_logp(tokens: Tokens) -> Tensor:
    kept_N = tokens.response.rollout_logp_N
    return tokens.student_written_N.detach() if kept_N is None else kept_N


def _teacher_written(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The teacher's log-prob of the token written, and where it is -inf. There the loss is infinite, and the student's
    log-prob stands in, so that the gradient is finite as it is for the divergences."""
    if tokens.teacher_written_N is None:
        raise ValueError("this loss compares with the teacher, and teacher_written_N is None")
    impossible_N = tokens.teacher_written_N == -math.inf
    stand_in_N = tokens.student_written_N.detach()
    return torch.where(impossible_N, stand_in_N, tokens.teacher_written_N), impossible_N

"""Divergences between the teacher's distribution and the student's at one position, and the likelihood of one token.

Every loss takes normalised, unwarped log-probabilities (natural logarithm) and returns one number per token; which
tokens count, and by how much, is decided elsewhere. The sums run over the vocabulary only.

Where a probability is exactly zero (a log-probability of -inf) the *value* is the mathematical one: 0 log 0 = 0, and
+inf where the first distribution has mass that the second lacks. The *gradient* is finite for every such pattern: a
position with an infinite value stops the run by its loss, not by poisoning the weights with NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skd.errors import ConfigError, Problem
from skd.objectives.tokens import Tokens
from skd.schedule import Number, ends

__all__ = ["JSD", "NLL", "ForwardKL", "ReverseKL", "SkewKL", "SkewReverseKL", "TotalVariation", "kl"]


class _Divergence:
    needs_teacher: ClassVar[bool] = True
    needs_rollout_logp: ClassVar[bool] = False


@dataclass(frozen=True)
class NLL:
    """-log S(written): the cross-entropy of SFT and of sequence-level KD (Kim and Rush, 2016, arXiv 1606.07947)."""

    needs_teacher: ClassVar[bool] = False
    needs_rollout_logp: ClassVar[bool] = False

    def __call__(self, tokens: Tokens) -> Tensor:
        return -tokens.student_written_N.float()


@dataclass(frozen=True)
class ForwardKL(_Divergence):
    """KL(T || S), mode covering: the loss of SKD (arXiv 2410.11325, section 3)."""

    def __call__(self, tokens: Tokens) -> Tensor:
        return kl(tokens.given_teacher(), tokens.student_logp_NV.float())


@dataclass(frozen=True)
class ReverseKL(_Divergence):
    """KL(S || T), mode seeking (Gu et al., 2024, arXiv 2306.08543)."""

    def __call__(self, tokens: Tokens) -> Tensor:
        return kl(tokens.student_logp_NV.float(), tokens.given_teacher())


@dataclass(frozen=True)
class JSD(_Divergence):
    """beta KL(T || M) + (1 - beta) KL(S || M) with M = beta T + (1 - beta) S (Agarwal et al., 2024, arXiv 2306.13649).

    At most ln 2, symmetric at beta = 1/2, and it tends to 0 as beta tends to 0 or 1. The two ends are therefore not
    the two KLs, as some libraries define them to be; ask for ``ForwardKL`` or ``ReverseKL`` by name.

    Raises ConfigError unless 0 < beta < 1.
    """

    beta: Number = 0.5

    def __post_init__(self) -> None:
        for beta in ends(self.beta):
            if not 0.0 < beta < 1.0:
                found = f"beta is {beta}, and the generalised JSD is defined for 0 < beta < 1"
                remedy = "take a beta inside, or name the divergence you mean at the end: forward_kl or reverse_kl"
                raise ConfigError(Problem("SKD-T09", "objective.loss.beta", found, remedy))

    def __call__(self, tokens: Tokens) -> Tensor:
        beta = tokens.value(self.beta)
        student_logp_NV, teacher_logp_NV = tokens.student_logp_NV.float(), tokens.given_teacher()
        # Of all distributions M is the one with the smallest sum of both terms, so no gradient passes through it.
        mixture_logp_NV = _mixture(teacher_logp_NV.detach(), student_logp_NV.detach(), beta)
        teacher_term_N, student_term_N = kl(teacher_logp_NV, mixture_logp_NV), kl(student_logp_NV, mixture_logp_NV)
        return beta * teacher_term_N + (1.0 - beta) * student_term_N


@dataclass(frozen=True)
class SkewKL(_Divergence):
    """KL(T || alpha T + (1 - alpha) S): bounded by -log alpha (DistiLLM, Ko et al., 2024, arXiv 2402.03898).

    Raises ConfigError unless 0 < alpha < 1.
    """

    alpha: Number = 0.1

    def __post_init__(self) -> None:
        _check_alpha(self.alpha, "forward_kl")

    def __call__(self, tokens: Tokens) -> Tensor:
        teacher_logp_NV, student_logp_NV = tokens.given_teacher(), tokens.student_logp_NV.float()
        return kl(teacher_logp_NV, _mixture(teacher_logp_NV, student_logp_NV, tokens.value(self.alpha)))


@dataclass(frozen=True)
class SkewReverseKL(_Divergence):
    """KL(S || alpha S + (1 - alpha) T): bounded by -log alpha (DistiLLM, Ko et al., 2024, arXiv 2402.03898).

    Raises ConfigError unless 0 < alpha < 1.
    """

    alpha: Number = 0.1

    def __post_init__(self) -> None:
        _check_alpha(self.alpha, "reverse_kl")

    def __call__(self, tokens: Tokens) -> Tensor:
        teacher_logp_NV, student_logp_NV = tokens.given_teacher(), tokens.student_logp_NV.float()
        return kl(student_logp_NV, _mixture(student_logp_NV, teacher_logp_NV, tokens.value(self.alpha)))


@dataclass(frozen=True)
class TotalVariation(_Divergence):
    """1/2 sum |T - S|, at most 1 (f-DISTILL, Wen et al., 2023, arXiv 2307.15190). The gradient of |x| at 0 is 0."""

    def __call__(self, tokens: Tokens) -> Tensor:
        return 0.5 * (tokens.given_teacher().exp() - tokens.student_logp_NV.float().exp()).abs().sum(-1)


def _check_alpha(number: Number, plain: str) -> None:
    for alpha in ends(number):
        if not 0.0 < alpha < 1.0:
            found = f"alpha is {alpha}, and the skew divergences are defined for 0 < alpha < 1"
            remedy = f"take an alpha inside, or write {plain}, which is the limit at 0"
            raise ConfigError(Problem("SKD-T09", "objective.loss.alpha", found, remedy))


def _mixture(first_logp_NV: Tensor, second_logp_NV: Tensor, share: float | Tensor) -> Tensor:
    """log(share exp(first) + (1 - share) exp(second)) [N, V], without leaving the log domain."""
    share_N1 = torch.as_tensor(share, dtype=torch.float32, device=first_logp_NV.device).reshape(-1, 1)
    mixture_NV: Tensor = _Mixture.apply(first_logp_NV, second_logp_NV, share_N1)  # type: ignore[no-untyped-call]
    return mixture_NV


class _Mixture(torch.autograd.Function):
    """The slope for each part is its share of the mixture's mass there. logaddexp would give NaN for it where neither
    part has any mass."""

    @staticmethod
    def forward(ctx: Any, first_logp_NV: Tensor, second_logp_NV: Tensor, share_N1: Tensor) -> Tensor:
        weighted = first_logp_NV + share_N1.log(), second_logp_NV + torch.log1p(-share_N1)
        mixture_NV = torch.logaddexp(*weighted)
        slopes = [
            (part - mixture_NV).exp_().nan_to_num_(nan=0.0) if needed else None
            for part, needed in zip(weighted, ctx.needs_input_grad, strict=False)
        ]
        ctx.save_for_backward(*slopes)
        return mixture_NV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NV: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if slope is None else slope * grad_NV for slope in ctx.saved_tensors), None


def kl(p_logp_NV: Tensor, q_logp_NV: Tensor) -> Tensor:
    """KL(p || q) in nats, float32 [N], of log-probabilities [N, V]."""
    kl_N: Tensor = _KL.apply(p_logp_NV, q_logp_NV)  # type: ignore[no-untyped-call]
    return kl_N


class _KL(torch.autograd.Function):
    """KL(p || q) [N], summed as p log(p/q) + (q - p), from log-probabilities [N, V].

    The added q - p sums to 0 for normalised distributions, but with it every term is >= 0 and a rounding error of the
    normalisers enters in second order only. Without it a KL of 1e-4 over 262,144 ids drowns in float32.

    The two summands are also the two gradients: p log(p/q) for log p, and q - p for log q. So backward needs one
    [N, V] tensor that forward has anyway, where a recorded graph would keep a dozen.
    """

    @staticmethod
    def forward(ctx: Any, p_logp_NV: Tensor, q_logp_NV: Tensor) -> Tensor:
        p_NV = p_logp_NV.exp()
        # No [N, V] masks here: small tensors among large ones fragment the heap, and memory creeps up with N.
        gap_NV = (p_logp_NV - q_logp_NV).nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)
        q_minus_p_NV = _q_minus_p(p_NV, q_logp_NV, gap_NV)
        infinite_N = gap_NV.amax(-1) == math.inf
        # Zero probabilities are taken out before the product, for 0 * inf is NaN.
        p_times_gap_NV = gap_NV.nan_to_num_(posinf=0.0, neginf=0.0).mul_(p_NV)
        p_needs, q_needs = ctx.needs_input_grad
        ctx.save_for_backward(p_times_gap_NV if p_needs else None, q_minus_p_NV if q_needs else None)
        return (p_times_gap_NV + q_minus_p_NV).sum(-1).masked_fill(infinite_N, math.inf)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(None if saved is None else saved * grad_N.unsqueeze(-1) for saved in ctx.saved_tensors)


def _q_minus_p(p_NV: Tensor, q_logp_NV: Tensor, gap_NV: Tensor) -> Tensor:
    """q - p [N, V], given gap = log(p/q): the larger of the two times (1 - smaller/larger), with its sign.

    So the difference keeps its digits where both are close, and nothing overflows where they are far apart.
    """
    larger_NV = torch.maximum(p_NV, q_logp_NV.exp())
    return larger_NV.mul_(gap_NV.sign()).mul_(gap_NV.abs().neg_().expm1_())

"""Token losses: what the student is told about one position, as pure functions of log-probabilities.

Every loss takes normalised, unwarped log-probabilities (natural logarithm) and returns one number per token; which
tokens count, and by how much, is decided elsewhere. The sums run over the vocabulary only.

Where a probability is exactly zero (a log-probability of -inf) the *value* is the mathematical one: 0 log 0 = 0, and
+inf where the first distribution has mass that the second lacks. The *gradient* is finite for every such pattern: a
position with an infinite value stops the run by its loss, not by poisoning the weights with NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skd.errors import ConfigError, Problem

__all__ = ["JSD", "NLL", "ForwardKL", "ReverseKL", "TokenLoss", "log_probs"]


def log_probs(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """Float32 log-probabilities [..., V] of logits [..., V], divided by ``temperature`` first.

    Use it where a loss is computed: on CPU torch.log_softmax adds the exponentials up one after the other, which over
    262,144 ids costs up to 7e-5 of every probability; logsumexp adds them pairwise and stays below 1e-6.
    """
    logits_NV = logits_NV.float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    return logits_NV - logits_NV.logsumexp(-1, keepdim=True)


class TokenLoss(Protocol):
    """A loss of each token. Implementations are frozen dataclasses, so that a loss is a value."""

    @property
    def needs_teacher(self) -> bool:
        """Whether ``teacher_logp_NV`` must be given."""
        ...

    def __call__(self, student_logp_NV: Tensor, teacher_logp_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """Float32 [N] in nats, from log-probabilities [N, V] and the ids [N] that the response has there."""
        ...


@dataclass(frozen=True)
class NLL:
    """-log S(target): the cross-entropy of SFT and of sequence-level KD (Kim and Rush, 2016, arXiv 1606.07947)."""

    needs_teacher: ClassVar[bool] = False

    def __call__(self, student_logp_NV: Tensor, teacher_logp_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        return -student_logp_NV.gather(-1, target_ids_N.unsqueeze(-1)).squeeze(-1).float()


@dataclass(frozen=True)
class ForwardKL:
    """KL(T || S), mode covering: the loss of SKD (arXiv 2410.11325, section 3)."""

    needs_teacher: ClassVar[bool] = True

    def __call__(self, student_logp_NV: Tensor, teacher_logp_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        return _kl(_given(teacher_logp_NV).float(), student_logp_NV.float())


@dataclass(frozen=True)
class ReverseKL:
    """KL(S || T), mode seeking (Gu et al., 2024, arXiv 2306.08543)."""

    needs_teacher: ClassVar[bool] = True

    def __call__(self, student_logp_NV: Tensor, teacher_logp_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        return _kl(student_logp_NV.float(), _given(teacher_logp_NV).float())


@dataclass(frozen=True)
class JSD:
    """beta KL(T || M) + (1 - beta) KL(S || M) with M = beta T + (1 - beta) S (Agarwal et al., 2024, arXiv 2306.13649).

    At most ln 2, symmetric at beta = 1/2, and it tends to 0 as beta tends to 0 or 1. The two ends are therefore not
    the two KLs, as some libraries define them to be; ask for ``ForwardKL`` or ``ReverseKL`` by name.

    Raises ConfigError unless 0 < beta < 1.
    """

    beta: float = 0.5
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.beta < 1.0:
            found = f"beta is {self.beta}, and the generalised JSD is defined for 0 < beta < 1"
            remedy = "take a beta inside, or name the divergence you mean at the end: forward_kl or reverse_kl"
            raise ConfigError(Problem("SKD-T09", "objective.beta", found, remedy))

    def __call__(self, student_logp_NV: Tensor, teacher_logp_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        student_logp_NV, teacher_logp_NV = student_logp_NV.float(), _given(teacher_logp_NV).float()
        # Of all distributions M is the one with the smallest sum of both terms, so no gradient passes through it.
        mixture_logp_NV = _log_mixture(teacher_logp_NV.detach(), student_logp_NV.detach(), self.beta)
        teacher_term_N, student_term_N = _kl(teacher_logp_NV, mixture_logp_NV), _kl(student_logp_NV, mixture_logp_NV)
        return self.beta * teacher_term_N + (1.0 - self.beta) * student_term_N


def _given(teacher_logp_NV: Tensor | None) -> Tensor:
    if teacher_logp_NV is None:
        raise ValueError("this divergence compares with the teacher, and teacher_logp_NV is None")
    return teacher_logp_NV


def _log_mixture(first_logp_NV: Tensor, second_logp_NV: Tensor, share: float) -> Tensor:
    """log(share exp(first) + (1 - share) exp(second)) [N, V], without leaving the log domain."""
    return torch.logaddexp(first_logp_NV + math.log(share), second_logp_NV + math.log1p(-share))


def _kl(p_logp_NV: Tensor, q_logp_NV: Tensor) -> Tensor:
    """KL(p || q), float32 [N]."""
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

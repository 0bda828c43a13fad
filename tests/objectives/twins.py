"""Every divergence, and the float64 twin of each loss of a whole distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skd.objectives import JSD, NLL, ForwardKL, ReverseKL, SkewKL, SkewReverseKL, TokenLoss, TotalVariation
from tests.oracles import divergences as oracle
from tests.oracles.divergences import Array

__all__ = ["DIVERGENCES", "twin"]

DIVERGENCES: list[TokenLoss] = [
    ForwardKL(),
    ReverseKL(),
    JSD(),
    JSD(0.1),
    JSD(0.9),
    SkewKL(),
    SkewKL(0.5),
    SkewReverseKL(),
    SkewReverseKL(0.5),
    TotalVariation(),
]


def twin(loss: TokenLoss, student_NV: Array, teacher_NV: Array, targets_N: NDArray[np.int64]) -> tuple[Array, Array]:
    """(value [N], gradient [N, V] for the student's logits) of probabilities."""
    match loss:
        case NLL():
            return oracle.nll(student_NV, targets_N), oracle.nll_grad(student_NV, targets_N)
        case ForwardKL():
            return oracle.forward_kl(student_NV, teacher_NV), oracle.forward_kl_grad(student_NV, teacher_NV)
        case ReverseKL():
            return oracle.reverse_kl(student_NV, teacher_NV), oracle.reverse_kl_grad(student_NV, teacher_NV)
        case JSD(float(beta)):
            return oracle.jsd(student_NV, teacher_NV, beta), oracle.jsd_grad(student_NV, teacher_NV, beta)
        case SkewKL(float(alpha)):
            return oracle.skew_kl(student_NV, teacher_NV, alpha), oracle.skew_kl_grad(student_NV, teacher_NV, alpha)
        case SkewReverseKL(float(alpha)):
            value_N = oracle.skew_reverse_kl(student_NV, teacher_NV, alpha)
            return value_N, oracle.skew_reverse_kl_grad(student_NV, teacher_NV, alpha)
        case TotalVariation():
            return oracle.total_variation(student_NV, teacher_NV), oracle.total_variation_grad(student_NV, teacher_NV)
    raise AssertionError(loss)

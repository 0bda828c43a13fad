"""Token losses in float64 numpy, written down as their formulas read; the slow twins of skd.objectives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits_NV: Array) -> Array:
    shifted = np.exp(logits_NV - logits_NV.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def kl(p_NV: Array, q_NV: Array) -> Array:
    """sum p log(p / q) with 0 log 0 = 0, and inf where p has mass that q lacks."""
    terms = np.zeros_like(p_NV)
    has_mass = p_NV > 0
    with np.errstate(divide="ignore"):
        terms[has_mass] = p_NV[has_mass] * (np.log(p_NV[has_mass]) - np.log(q_NV[has_mass]))
    return terms.sum(-1)


def forward_kl(student_NV: Array, teacher_NV: Array) -> Array:
    return kl(teacher_NV, student_NV)


def reverse_kl(student_NV: Array, teacher_NV: Array) -> Array:
    return kl(student_NV, teacher_NV)


def jsd(student_NV: Array, teacher_NV: Array, beta: float) -> Array:
    mixture_NV = beta * teacher_NV + (1 - beta) * student_NV
    return beta * kl(teacher_NV, mixture_NV) + (1 - beta) * kl(student_NV, mixture_NV)


def skew_kl(student_NV: Array, teacher_NV: Array, alpha: float) -> Array:
    return kl(teacher_NV, alpha * teacher_NV + (1 - alpha) * student_NV)


def skew_reverse_kl(student_NV: Array, teacher_NV: Array, alpha: float) -> Array:
    return kl(student_NV, alpha * student_NV + (1 - alpha) * teacher_NV)


def total_variation(student_NV: Array, teacher_NV: Array) -> Array:
    difference: Array = 0.5 * np.abs(teacher_NV - student_NV).sum(-1)
    return difference


def nll(student_NV: Array, target_ids_N: NDArray[np.int64]) -> Array:
    return -np.log(student_NV[np.arange(len(target_ids_N)), target_ids_N])


# Gradients of the sum over tokens for the student's logits, by hand. With p the student's probabilities, dp_i/dlogit_j
# = p_i (1[i = j] - p_j), so a loss with derivative g_i for p_i has the gradient p_j (g_j - sum_i p_i g_i).


def _through_softmax(student_NV: Array, slope_NV: Array) -> Array:
    return student_NV * (slope_NV - (student_NV * slope_NV).sum(-1, keepdims=True))


def forward_kl_grad(student_NV: Array, teacher_NV: Array) -> Array:
    return _through_softmax(student_NV, -teacher_NV / student_NV)


def reverse_kl_grad(student_NV: Array, teacher_NV: Array) -> Array:
    return _through_softmax(student_NV, np.log(student_NV / teacher_NV) + 1)


def jsd_grad(student_NV: Array, teacher_NV: Array, beta: float) -> Array:
    mixture_NV = beta * teacher_NV + (1 - beta) * student_NV
    teacher_slope = beta * -teacher_NV / mixture_NV * (1 - beta)
    student_slope = (1 - beta) * (np.log(student_NV / mixture_NV) + 1 - student_NV / mixture_NV * (1 - beta))
    return _through_softmax(student_NV, teacher_slope + student_slope)


def skew_kl_grad(student_NV: Array, teacher_NV: Array, alpha: float) -> Array:
    mixture_NV = alpha * teacher_NV + (1 - alpha) * student_NV
    return _through_softmax(student_NV, -(1 - alpha) * teacher_NV / mixture_NV)


def skew_reverse_kl_grad(student_NV: Array, teacher_NV: Array, alpha: float) -> Array:
    mixture_NV = alpha * student_NV + (1 - alpha) * teacher_NV
    return _through_softmax(student_NV, np.log(student_NV / mixture_NV) + 1 - alpha * student_NV / mixture_NV)


def total_variation_grad(student_NV: Array, teacher_NV: Array) -> Array:
    return _through_softmax(student_NV, 0.5 * np.sign(student_NV - teacher_NV))


def nll_grad(student_NV: Array, target_ids_N: NDArray[np.int64]) -> Array:
    slope_NV = np.zeros_like(student_NV)
    rows = np.arange(len(target_ids_N))
    slope_NV[rows, target_ids_N] = -1 / student_NV[rows, target_ids_N]
    return _through_softmax(student_NV, slope_NV)

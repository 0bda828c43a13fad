"""Token losses in float64 numpy, written down as their formulas read; the slow twins of skd.objectives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits_NV: Array) -> Array:
    shifted = np.exp(logits_NV - logits_NV.max(-1, keepdims=True))
    probs_NV: Array = shifted / shifted.sum(-1, keepdims=True)
    return probs_NV


def kl(p_NV: Array, q_NV: Array) -> Array:
    """sum p log(p / q) with 0 log 0 = 0, and inf where p has mass that q lacks."""
    terms = np.zeros_like(p_NV)
    has_mass = p_NV > 0
    with np.errstate(divide="ignore"):
        terms[has_mass] = p_NV[has_mass] * (np.log(p_NV[has_mass]) - np.log(q_NV[has_mass]))
    kl_N: Array = terms.sum(-1)
    return kl_N


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
    distance_N: Array = 0.5 * np.abs(teacher_NV - student_NV).sum(-1)
    return distance_N


def nll(student_NV: Array, target_ids_N: NDArray[np.int64]) -> Array:
    return -np.log(student_NV[np.arange(len(target_ids_N)), target_ids_N])


# Gradients of the sum over tokens for the student's logits, by hand. With p the student's probabilities, dp_i/dlogit_j
# = p_i (1[i = j] - p_j), so a loss with derivative g_i for p_i has the gradient p_j (g_j - sum_i p_i g_i).


def _through_softmax(student_NV: Array, slope_NV: Array) -> Array:
    grad_NV: Array = student_NV * (slope_NV - (student_NV * slope_NV).sum(-1, keepdims=True))
    return grad_NV


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


# A distribution of which only the most probable ids are told apart: those ids, and one bucket for all others.


def buckets(probs_NV: Array, ids_NK: NDArray[np.int64]) -> Array:
    """[N, K + 1]: the ids' own probabilities, then what is left."""
    others_NV = probs_NV.copy()
    np.put_along_axis(others_NV, ids_NK, 0.0, axis=-1)
    return np.concatenate([np.take_along_axis(probs_NV, ids_NK, -1), others_NV.sum(-1, keepdims=True)], -1)


def buckets_grad(grad_NB: Array, student_NV: Array, ids_NK: NDArray[np.int64]) -> Array:
    """The gradient [N, V] for the logits, of one [N, K + 1] for the logarithms of the buckets taken as logits.

    A bucket of probability q has q (slope - mean) there, and an id of probability p in it p (slope - mean).
    """
    bucket_of_NV = np.full(student_NV.shape, ids_NK.shape[-1])
    np.put_along_axis(bucket_of_NV, ids_NK, np.arange(ids_NK.shape[-1])[None], axis=-1)
    per_mass_NB = grad_NB / buckets(student_NV, ids_NK)
    return student_NV * np.take_along_axis(per_mass_NB, bucket_of_NV, -1)


# Targets made of teacher and student.


def geometric(student_NV: Array, teacher_NV: Array, teacher_power: Array, student_power: Array) -> Array:
    """T^a S^b, normalised, with 0^0 = 1; powers [N]."""
    product_NV: Array = teacher_NV ** teacher_power[:, None] * student_NV ** student_power[:, None]
    target_NV: Array = product_NV / product_NV.sum(-1, keepdims=True)
    return target_NV

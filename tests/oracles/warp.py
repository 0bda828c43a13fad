"""Temperature and top-p in numpy float64, one distribution at a time."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def softmax(logits_V: Floats) -> Floats:
    """Probabilities of one vector of logits; -inf becomes 0."""
    weights = np.exp(logits_V - logits_V.max())
    return np.asarray(weights / weights.sum())


def nucleus(probs_V: Floats, mass: float) -> NDArray[np.bool_]:
    """The smallest set of most probable ids with at least ``mass``; ids that tie with its last one are in it."""
    total = 0.0
    for border in sorted(probs_V, reverse=True):
        total += border
        if total >= mass:
            break
    return np.asarray(probs_V >= border)


def warp(logits_V: Floats, temperature: float = 1.0, top_p: float = 1.0) -> Floats:
    """The drawn-from probabilities. Temperature 0 is a one-hot at the argmax, the lowest id on ties."""
    logits_V = np.asarray(logits_V, dtype=np.float64)
    if temperature == 0.0:
        return np.asarray(np.eye(len(logits_V))[int(np.argmax(logits_V))])
    probs_V = softmax(logits_V / temperature)
    if top_p < 1.0:
        probs_V = np.where(nucleus(probs_V, top_p), probs_V, 0.0)
    return np.asarray(probs_V / probs_V.sum())


def nucleus_margin(logits_V: Floats, temperature: float, top_p: float) -> float:
    """How near the set of top_p is to being another one: distance in mass, or in log-probability of its border."""
    if temperature == 0.0 or top_p >= 1.0:
        return float("inf")
    probs = np.sort(softmax(np.asarray(logits_V, dtype=np.float64) / temperature))[::-1]
    cumulative = np.cumsum(probs)
    last = int(np.searchsorted(cumulative, top_p))
    if last + 1 >= len(probs):
        return float("inf")
    return float(min(np.abs(cumulative - top_p).min(), np.log(probs[last] / probs[last + 1])))

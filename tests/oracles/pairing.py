"""Slow, obvious twins of ``skd.compare.significance``: every sign pattern, every resample of the items themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np


def mcnemar(gained: int, lost: int) -> float:
    """Exact McNemar: of gained + lost items that changed, how probable is a split at least as uneven, with a fair coin.

    Every number of gains is looked at, one by one.
    """
    n = gained + lost
    if n == 0:
        return 1.0
    uneven = abs(gained - lost)
    return sum(comb(n, k) for k in range(n + 1) if abs(k - (n - k)) >= uneven) / 2**n


def flips(difference_SI: Sequence[Sequence[float]]) -> float:
    """All 2^n sign patterns of the items' sums over the seeds, written down."""
    nets = [sum(column) for column in zip(*difference_SI, strict=True)]
    observed = abs(sum(nets))
    patterns = list(product((-1, 1), repeat=len(nets)))
    hits = sum(abs(sum(sign * net for sign, net in zip(signs, nets, strict=True))) >= observed for signs in patterns)
    return hits / len(patterns)


def bootstrap(difference_SI: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Items drawn one by one, with all their seeds."""
    draws, n = np.random.default_rng(seed), difference_SI.shape[1]
    means = [float(difference_SI[:, draws.integers(n, size=n)].mean()) for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def holm(ps: Sequence[float]) -> list[float]:
    """By the definition: the corrected p is the smallest level at which the step-down procedure still rejects it."""
    levels = sorted({min(1.0, (len(ps) - rank) * p) for rank, p in enumerate(sorted(ps))} | {1.0})
    corrected = []
    for i in range(len(ps)):
        corrected.append(next((level for level in levels if i in _rejected(ps, level)), 1.0))
    return corrected


def _rejected(ps: Sequence[float], level: float) -> set[int]:
    rejected: set[int] = set()
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if (len(ps) - rank) * ps[i] > level:
            break
        rejected.add(i)
    return rejected

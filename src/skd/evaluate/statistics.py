"""Intervals and tests for proportions measured on a fixed set of items. Pure functions; proportions are fractions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

__all__ = ["bootstrap_mean", "bootstrap_sums", "mcnemar_p", "paired_difference", "wilson_interval"]


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion, as fractions: it stays inside [0, 1] and keeps its coverage near both ends.

    ``n`` = 0 gives (nan, nan): no items, no score. Raises ValueError for impossible counts or levels.
    Source: E. B. Wilson, J. Amer. Statist. Assoc. 22 (1927) 209-212; compared in Brown, Cai, DasGupta (2001).
    """
    _check_level(level)
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n, got {successes} of {n}")
    if n == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def paired_difference(
    before: Sequence[bool], after: Sequence[bool], *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Difference of two scores on the same items, ``after`` - ``before``, with its percentile bootstrap interval.

    Both are judgements [n] of the same items in the same order; items are redrawn, so what the two share cancels.
    Returns (difference, low, high) as fractions, all nan when there are no items. Raises ValueError when the lengths
    differ. The same seed gives the same interval.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16.
    """
    _check_level(level)
    if len(before) != len(after):
        raise ValueError(f"paired scores need the same items, got {len(before)} and {len(after)}")
    n = len(before)
    if n == 0:
        return math.nan, math.nan, math.nan
    gained = sum(bool(b) and not a for a, b in zip(before, after, strict=True))
    lost = sum(bool(a) and not b for a, b in zip(before, after, strict=True))
    means = _resampled_differences(gained, lost, n, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return (gained - lost) / n, float(low), float(high)


def _resampled_differences(gained: int, lost: int, n: int, resamples: int, seed: int) -> np.ndarray:
    """Mean differences [resamples] of items drawn with replacement.

    Items differ only in the kind of their pair (gained, lost, same), so drawing n items with replacement is one draw
    of three multinomial counts.
    """
    shares = [gained / n, lost / n, (n - gained - lost) / n]
    counts = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    return (counts[:, 0] - counts[:, 1]) / n


def mcnemar_p(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided p of McNemar's test that both score alike; 1.0 when no item changed.

    Among the items that changed, gains and losses are a fair coin under the null hypothesis.
    Raises ValueError when the lengths differ. Source: Q. McNemar, Psychometrika 12 (1947) 153-157, exact binomial form.
    """
    if len(before) != len(after):
        raise ValueError(f"paired scores need the same items, got {len(before)} and {len(after)}")
    changed = [bool(b) for a, b in zip(before, after, strict=True) if bool(a) != bool(b)]
    n, smaller = len(changed), min(sum(changed), len(changed) - sum(changed))
    tail = sum(math.comb(n, k) for k in range(smaller + 1))
    return min(1.0, 2 * tail / (1 << n))


def bootstrap_sums(
    statistics: np.ndarray,
    score: Callable[[np.ndarray], float],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a score that is a function of sums over items, items redrawn.

    statistics: [n, k], what each item adds to the k sums. score: of the sums [k].
    """
    _check_level(level)
    draws, n = np.random.default_rng(seed), len(statistics)
    values = [score(statistics[draws.integers(n, size=n)].sum(axis=0)) for _ in range(resamples)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")


def bootstrap_mean(
    values: Sequence[float], *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of per-item values, items redrawn; (nan, nan) without items.

    The same seed gives the same interval. Source: Efron and Tibshirani (1993), chapter 13.
    """
    _check_level(level)
    n = len(values)
    if n == 0:
        return math.nan, math.nan
    draws, items = np.random.default_rng(seed), np.asarray(values, dtype=np.float64)
    # In slices, so that memory stays bounded for any number of items.
    size = max(1, 1_000_000 // n)
    means = [
        items[draws.integers(n, size=(min(size, resamples - start), n))].mean(axis=1)
        for start in range(0, resamples, size)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

"""Tests of two methods on the same items, over several seeds. Pure functions; scores are arrays [seeds, items].

Two questions are kept apart. Do *these* trained students differ on items of this kind? Items are redrawn (paired
bootstrap) or their differences flipped (McNemar). Would students of *other seeds* differ? That is the interval over
items and seeds, whose spread between seeds counts with the few degrees of freedom that a few seeds give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["crossed_interval", "flip_p", "holm", "paired_bootstrap", "student_quantile"]

Floats = NDArray[np.float64]


def flip_p(difference_SI: Floats) -> float:
    """Exact two-sided p that the sign of each item's difference is a fair coin.

    difference_SI: [seeds, items], score of the one method minus that of the other. An item's differences are summed
    over the seeds and flip together, so that an item that is answered alike by all students counts once. With one seed
    and right-or-wrong scores it is the exact test of McNemar (1947). Whole sums are enumerated by convolution, others
    drawn (10,000 sign vectors, fixed seed; the observed one counts, too).
    Source: Fisher's randomisation of pairs; Good, Permutation Tests (2000), chapter 3.
    """
    net_I = np.asarray(difference_SI, dtype=np.float64).sum(axis=0)
    size_I = np.abs(net_I[net_I != 0])
    if not len(size_I):
        return 1.0
    if np.array_equal(size_I, np.round(size_I)) and size_I.max() <= 64:
        return _enumerated(size_I.astype(np.int64), round(abs(float(net_I.sum()))))
    draws = np.random.default_rng(0)
    sums = [float(draws.choice((-1.0, 1.0), len(size_I)) @ size_I) for _ in range(10_000)]
    extreme = sum(abs(total) >= abs(float(net_I.sum())) - 1e-9 for total in sums)
    return (extreme + 1) / (len(sums) + 1)


def _enumerated(size_I: NDArray[np.int64], observed: int) -> float:
    """P(|sum of +-size| >= observed), signs fair: the distribution is the convolution of one binomial for each size."""
    chance = np.ones(1)
    for size in np.unique(size_I):
        n = int((size_I == size).sum())
        spread = np.zeros(2 * n * int(size) + 1)
        spread[:: 2 * int(size)] = [math.exp(_log_choose(n, k) - n * math.log(2)) for k in range(n + 1)]
        chance = np.convolve(chance, spread)
    total = np.arange(len(chance)) - len(chance) // 2
    return min(1.0, float(chance[np.abs(total) >= observed].sum()))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """The p values corrected so that the chance of any false win among them stays below the level one looks at.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def paired_bootstrap(
    difference_SI: Floats, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean difference, items redrawn with all their seeds; (nan, nan) without items.

    Also the interval of a mean score, given scores. Source: Efron and Tibshirani (1993), chapters 13 and 16.
    """
    mean_I = np.asarray(difference_SI, dtype=np.float64).mean(axis=0)
    if not len(mean_I):
        return math.nan, math.nan
    # Items with one value are alike, so that only how many of them are drawn matters.
    values, counts = np.unique(mean_I, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(mean_I), counts / len(mean_I), size=resamples)
    low, high = np.quantile(drawn @ values / len(mean_I), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def crossed_interval(difference_SI: Floats, *, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean difference over items *and* seeds; None with fewer than two seeds or items.

    The variance is that of the items' means over n plus that of the seeds' means over S (slightly too large: what is
    left of items and seeds counts twice), with Satterthwaite's degrees of freedom.
    Source: Satterthwaite, Biometrics Bulletin 2 (1946) 110-114; Owen, Annals of Applied Statistics 1 (2007) 386-411.
    """
    scores = np.asarray(difference_SI, dtype=np.float64)
    seeds, items = scores.shape
    if seeds < 2 or items < 2:
        return None
    parts = [
        (float(scores.mean(axis=0).var(ddof=1)) / items, items - 1),
        (float(scores.mean(axis=1).var(ddof=1)) / seeds, seeds - 1),
    ]
    variance, mean = sum(part for part, _ in parts), float(scores.mean())
    if variance == 0.0:
        return mean, mean
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = student_quantile(0.5 + level / 2, freedom) * math.sqrt(variance)
    return mean - half, mean + half


def student_quantile(p: float, freedom: float) -> float:
    """The value that a t variable with ``freedom`` degrees stays below with probability 0.5 < p < 1.

    With t = sqrt(freedom) tan(angle) the density is cos(angle)^(freedom - 1) on a bounded range.
    """
    angle = np.linspace(0.0, math.pi / 2, 200_001)
    height = np.cos(angle) ** (freedom - 1)
    height[-1] = 0.0 if freedom > 1 else height[-2]
    area = np.concatenate([[0.0], np.cumsum((height[1:] + height[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * p - 1, area / area[-1], angle)))

"""A score with what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from skd.evaluate.statistics import bootstrap_mean, bootstrap_sums, wilson_interval

__all__ = ["Finding", "Score", "item_score", "mean_score", "share_score", "sums_score"]

Finding = dict[str, Any]
"""What a metric found in one response: plain JSON values, the first of which is the item's score."""


@dataclass(frozen=True)
class Score:
    """A number over n items with its 95 % interval."""

    value: float
    interval_95: tuple[float, float]
    n: int
    interval_by: str
    """wilson, or bootstrap over items."""
    is_share: bool = True
    """From 0 to 1, and shown in percent; otherwise on the metric's own scale."""
    signature: str = ""
    """How the metric was computed, such as sacrebleu's signature."""

    def text(self) -> str:
        """``12.3 %   (95 % interval 10.1 to 14.5)``; points of the metric's own scale have no percent sign."""
        factor, digits, sign = (100, 1, " %") if self.is_share else (1, 2, "")
        low, high = (f"{factor * bound:.{digits}f}" for bound in self.interval_95)
        return f"{f'{factor * self.value:5.{digits}f}{sign}':7}   (95 % interval {low} to {high})"

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        return {key: value for key, value in asdict(self).items() if value != ""}


def item_score(finding: Finding) -> float:
    """The score of one item; 1 or 0 where it is right or wrong."""
    return float(next(iter(finding.values())))


def share_score(right: Sequence[bool], signature: str = "") -> Score:
    """The share of items that are right."""
    n = len(right)
    return Score(sum(right) / n, wilson_interval(sum(right), n), n, "wilson", signature=signature)


def mean_score(values: Sequence[float], is_share: bool = True, signature: str = "") -> Score:
    """The mean of per-item values."""
    return _bootstrapped(fmean(values), bootstrap_mean(values), len(values), is_share, signature)


def sums_score(
    rows: npt.ArrayLike, of: Callable[[np.ndarray], float], is_share: bool = True, signature: str = ""
) -> Score:
    """A score that is a function of the sums [k] over items of ``rows`` [n, k], such as a ratio of two of them."""
    statistics = np.asarray(rows, dtype=np.float64)
    interval = bootstrap_sums(statistics, of)
    value = float(of(statistics.sum(axis=0)))
    return _bootstrapped(value, interval, len(statistics), is_share, signature)


def _bootstrapped(value: float, interval: tuple[float, float], n: int, is_share: bool, signature: str) -> Score:
    """Items that are all 0 or all 1 are so in every redraw as well; Wilson's interval says what n of them can tell."""
    if is_share and value in (0.0, 1.0) and interval == (value, value):
        return Score(value, wilson_interval(int(value) * n, n), n, "wilson", signature=signature)
    return Score(value, interval, n, "bootstrap over items", is_share, signature)

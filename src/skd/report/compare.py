"""The page of a comparison: what was found, a table for each setting and budget, and score against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skd.report.figures import Figure, figure
from skd.report.page import render_page
from skd.report.plots import Points
from skd.text import write_text

__all__ = ["ComparedMethod", "ComparedTable", "ComparisonPage", "Curves", "write_comparison"]


@dataclass(frozen=True)
class ComparedMethod:
    """One line of a table. Scores, bounds and differences are fractions."""

    name: str
    score: float
    low: float
    high: float
    by_seed: Sequence[float]
    difference: float | None
    """From the reference; None for the reference itself."""
    difference_low: float | None
    difference_high: float | None
    p: float | None
    """Corrected for all methods; None for the reference."""
    verdict: str
    """wins, tie, loses, or reference."""
    rank: str
    """best, tie or behind."""
    steps: float
    seconds: float

    @property
    def at(self) -> dict[str, float]:
        """Positions in percent on an axis from 0 to 1."""
        ends = {"score": self.score, "low": self.low, "high": self.high}
        return {key: _percent(value) for key, value in ends.items()}

    @property
    def seeds_at(self) -> list[float]:
        """Those of the single seeds, where there are several."""
        return [_percent(score) for score in self.by_seed] if len(self.by_seed) > 1 else []


@dataclass(frozen=True)
class ComparedTable:
    """The methods in one setting under one budget, best first."""

    title: str
    lead: str
    """What it says, in one sentence."""
    methods: Sequence[ComparedMethod]
    marks: Sequence[float] = ()
    """Scores of the models that training starts from, marked in every line."""

    @property
    def marks_at(self) -> list[float]:
        """Positions of the marks in percent."""
        return [_percent(score) for score in self.marks]


def _percent(share: float) -> float:
    return 100 * min(1.0, max(0.0, share))


@dataclass(frozen=True)
class Curves:
    """Score by what was spent, one series for each method."""

    title: str
    x_label: str
    series: Mapping[str, Points]


@dataclass(frozen=True)
class ComparisonPage:
    """Everything the page shows; the writer computes nothing but their form."""

    name: str
    tables: Sequence[ComparedTable]
    curves: Sequence[Curves]
    notes: Sequence[str]
    command: str
    facts: Mapping[str, str]


def write_comparison(page: ComparisonPage, path: str | Path) -> Path:
    """Write the page to ``path`` and return it. Raises ResourceError when it cannot be written."""
    return write_text(Path(path), render_comparison(page))


def render_comparison(page: ComparisonPage) -> str:
    """The page as HTML text."""
    figures = drawn(page.curves)
    missing = [] if figures else ["score against cost: no measurement while training was recorded"]
    return render_page("compare.html", page=page, figures=figures, missing=missing)


def drawn(curves: Sequence[Curves]) -> list[Figure]:
    """The figures; a method has one style in all of them."""
    labels = list(dict.fromkeys(label for one in curves for label in one.series))
    styles = {label: number for number, label in enumerate(labels)}
    figures = [
        figure(
            f"curve{number}",
            one.title,
            one.series,
            styles,
            percent=True,
            x_label=one.x_label,
        )
        for number, one in enumerate(curves)
    ]
    return [one for one in figures if one is not None]

"""The quickstart's page: methods measured on one test set, their learning curves, and who wrote which token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skd.report.figures import Figure, figure
from skd.report.page import points, render_page, signed_points
from skd.report.plots import NUM_STYLES
from skd.report.timeline import MAX_PROMPTS, Timeline, Track, timeline
from skd.report.tokens import Budget, snapshot
from skd.text import shortened, write_text

__all__ = ["MethodRow", "QuickstartPage", "write_quickstart"]

Curves = Mapping[str, Sequence[tuple[float, float | None]]]

REFERENCES = ("teacher", "start")
"""Rows that are drawn as dotted lines: they are measured, not trained here."""


@dataclass(frozen=True)
class MethodRow:
    """One line of the table. Scores, bounds and differences are fractions; differences are paired against the start."""

    name: str
    """Identifier such as ``skd``; ``teacher`` and ``start`` are the two references."""
    label: str
    score: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    seconds: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class QuickstartPage:
    """Everything the page shows; the writer computes nothing but their form."""

    rows: Sequence[MethodRow]
    curves: Curves
    """Score (a fraction) by step, per method label."""
    loss_curves: Curves
    acceptance_curves: Curves
    """Share of judged drafts that the gate kept, by step."""
    tokens: Sequence[Mapping[str, Any]]
    """SKD's token views through the training, see ``skd.report.tokens``."""
    task_name: str
    task_example: tuple[str, str]
    """(prompt, reference)"""
    n_test: int
    command: str
    versions: Mapping[str, str]
    notes: Sequence[str] = field(default_factory=list)


def write_quickstart(page: QuickstartPage, path: str | Path) -> Path:
    """Write the page to ``path`` and return it. Raises ResourceError when it cannot be written."""
    return write_text(Path(path), render_quickstart(page))


def render_quickstart(page: QuickstartPage) -> str:
    """The page as HTML text. A part without data is named as missing, never a failure."""
    view, missing = _tokens(page.tokens)
    figures = _figures(page)
    if not figures:
        missing.append("learning curves: no measurement while training was recorded")
    return render_page(
        "quickstart.html",
        page=page,
        prompt=shortened(page.task_example[0], 2_000),
        reference=shortened(page.task_example[1], 2_000),
        headline=_headline(page.rows, page.n_test),
        tiles=[row for name in ("start", "skd", "teacher") for row in page.rows if row.name == name],
        scale=_scale(page.rows),
        figures=figures,
        view=view,
        missing=missing,
    )


def _headline(rows: Sequence[MethodRow], n_test: int) -> str:
    found = {row.name: row for row in rows}
    if not {"skd", "start"} <= found.keys():
        return ""
    skd, start = found["skd"], found["start"]
    text = f"SKD took the student from {points(start.score)} to {points(skd.score)} on {n_test:,} held-out items"
    if skd.difference is None or skd.difference_low is None or skd.difference_high is None:
        return text + "."
    interval = f"95\u00a0% interval {signed_points(skd.difference_low)} to {signed_points(skd.difference_high)}"
    clear = skd.difference_low > 0 or skd.difference_high < 0
    verdict = "" if clear else " With this many items that is no clear change."
    return f"{text}: {signed_points(skd.difference)} points ({interval}, same items before and after).{verdict}"


def _scale(rows: Sequence[MethodRow]) -> list[tuple[MethodRow, dict[str, float] | None]]:
    """Each row with the positions of its score and interval on a shared 0 to 100 axis; None without a score."""
    start = [("start", row.score) for row in rows if row.name == "start" and math.isfinite(row.score)]
    scaled: list[tuple[MethodRow, dict[str, float] | None]] = []
    for row in rows:
        ends = {"score": row.score, "low": row.low, "high": row.high, **dict(start)}
        drawable = all(math.isfinite(value) for value in ends.values())
        scaled.append((row, {k: 100 * min(1.0, max(0.0, v)) for k, v in ends.items()} if drawable else None))
    return scaled


def _figures(page: QuickstartPage) -> list[Figure]:
    trained = [row.label for row in page.rows if row.name not in REFERENCES]
    others = [label for curves in (page.curves, page.loss_curves, page.acceptance_curves) for label in curves]
    labels = list(dict.fromkeys([*trained, *others]))
    styles = {label: number % NUM_STYLES for number, label in enumerate(labels)}
    references = {row.label: row.score for row in page.rows if row.name in REFERENCES and math.isfinite(row.score)}
    loss_note = "nats per token; not comparable between objectives"
    drawn = [
        figure("score", "Score on held-out items", page.curves, styles, percent=True, references=references),
        figure("loss", "Training loss", page.loss_curves, styles, note=loss_note),
        figure("acceptance", "Drafted tokens kept", page.acceptance_curves, styles, percent=True),
    ]
    return [one for one in drawn if one is not None]


def _tokens(views: Sequence[Mapping[str, Any]]) -> tuple[Timeline | None, list[str]]:
    if not views:
        return None, ["token view: none was recorded"]
    budget = Budget()
    try:
        shown = [snapshot(view, budget, MAX_PROMPTS) for view in views]
    except ValueError as error:
        return None, [f"token view: {shortened(str(error), 300)}"]
    return timeline([Track("SKD", 0, shown)], budget), []

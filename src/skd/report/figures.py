"""A plot with its title and the legend that carries the labels, so that no text from data enters the drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from skd.report.page import points
from skd.report.plots import NUM_STYLES, Points, line_plot
from skd.text import shortened, visible

__all__ = ["Figure", "Key", "figure"]

_MAX_KEYS = 14
_LABEL = 40


@dataclass(frozen=True)
class Key:
    """One entry of a legend: its style number (None for a dotted reference), label and last value."""

    style: int | None
    label: str
    value: str


@dataclass(frozen=True)
class Figure:
    """What the figure macro of the templates renders."""

    title: str
    note: str
    plot: Markup
    keys: list[Key]
    left_out: int
    """Series beyond those drawn."""


def figure(
    name: str,
    title: str,
    series: Mapping[str, Points],
    styles: Mapping[str, int],
    *,
    percent: bool = False,
    references: Mapping[str, float] | None = None,
    note: str = "",
    x_label: str = "step",
    stacked: bool = False,
) -> Figure | None:
    """A figure of the series, or None when none of them holds a finite point. ``name`` is unique on the page."""
    measured = {label: points_ for label, points_ in series.items() if any(map(_is_finite, points_))}
    drawn = dict(list(measured.items())[:_MAX_KEYS])
    levels = references or {}
    keys = [Key(styles[label] % NUM_STYLES, _short(label), _last(points_, percent)) for label, points_ in drawn.items()]
    keys += [Key(None, _short(label), _format(value, percent)) for label, value in levels.items()]
    over = "training step" if x_label == "step" else x_label
    alt = f"{title} by {over}. Last values: " + "; ".join(f"{key.label} {key.value}" for key in keys)
    plot = line_plot(
        drawn,
        styles=styles,
        name=name,
        alt=visible(alt),
        percent=percent,
        references=list(levels.values()),
        x_label=x_label,
        stacked=stacked,
    )
    return Figure(title, note, plot, keys, len(measured) - len(drawn)) if plot else None


def _short(label: str) -> str:
    return shortened(label, _LABEL)


def _is_finite(point: tuple[float, float | None]) -> bool:
    return point[1] is not None and math.isfinite(point[1])


def _last(series: Points, percent: bool) -> str:
    value = series[-1][1]
    return _format(value, percent) if value is not None and math.isfinite(value) else "not finite"


def _format(value: float, percent: bool) -> str:
    return points(value) if percent else f"{value:.4g}"

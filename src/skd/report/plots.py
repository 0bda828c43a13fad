"""Line plots as inline SVG whose colours are CSS variables, so that one plot serves light, dark and print."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from skd.text import visible

__all__ = ["NUM_STYLES", "Points", "downsample", "line_plot", "standalone"]

Points = Sequence[tuple[float, float | None]]
"""(x, y) pairs in the order of x; a y that is None, NaN, infinite or beyond 1e30 is a gap."""

NUM_STYLES = 7
_DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)), (0, (3, 1.5)), (0, (8, 3)), (0, (1, 3)))
_MARKERS = "osD^vPX"
_MAX_POINTS = 600
_MAX_DRAWN, _MIN_POINTS = 3_000, 60
"""Points of all series of a plot; those that one series keeps however many there are."""
_MAX_MARKED = 40
_HUGE = 1e30

# Stand-ins that the written SVG carries until they become variables of the page's style sheet.
_SERIES, _MUTED, _LINE = "#a0000", "#b00000", "#b00001"
_VARIABLES = (
    (re.compile(_SERIES + "([0-6])"), r"var(--s\1)"),
    (re.compile(_MUTED), "var(--muted)"),
    (re.compile(_LINE), "var(--line)"),
)
_FONT = re.compile(r"font-family: [^;]*; ")
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.family": "DejaVu Sans",
}

# The colours of templates/page.css, for plots that stand alone.

_LIGHT = (
    "--muted:#5b636d;--line:#dfe1df;--s0:#0b63a5;--s1:#c84c00;--s2:#00795a;--s3:#a8487f;--s4:#6b6f76;"
    "--s5:#8a6a00;--s6:#5448b8"
)
_DARK = (
    "--muted:#a3abb4;--line:#343a41;--s0:#58aef0;--s1:#ff8a4a;--s2:#37c79b;--s3:#e58fc1;--s4:#b1b7bd;"
    "--s5:#e0b93b;--s6:#a79cff"
)

_ELEMENTS = {"svg", "g", "path", "text", "defs", "clipPath", "rect", "use"}
_ATTRIBUTES = {"d", "transform", "style", "viewBox", "x", "y", "width", "height", "clip-path"}


def line_plot(
    series: Mapping[str, Points],
    *,
    styles: Mapping[str, int],
    name: str,
    alt: str,
    percent: bool = False,
    references: Sequence[float] = (),
    x_label: str = "step",
    stacked: bool = False,
) -> Markup:
    """An SVG of the series over training steps, or what ``x_label`` names; empty when no series holds a finite point.

    ``styles`` numbers each label's colour and dash; ``name`` is unique on the page; ``alt`` describes the plot to
    a screen reader. ``percent`` labels fractions as percent. ``references`` are dotted horizontal lines.
    No label is drawn: the page's legend carries them. ``stacked`` draws areas on top of each other; the series then
    have the same x.
    """
    limit = max(_MIN_POINTS, min(_MAX_POINTS, _MAX_DRAWN // max(len(series), 1)))
    arrays = {label: downsample(points, limit) for label, points in series.items()}
    if not any(np.isfinite(y).any() for _, y in arrays.values()):
        return Markup("")
    with rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change a report
        matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": name})
        figure = Figure(figsize=(5.0, 2.9), layout="constrained")
        axes = figure.add_subplot()
        if stacked:
            _stack(axes, arrays, styles)
        else:
            for label, (x, y) in arrays.items():
                _draw(axes, x, y, styles[label] % NUM_STYLES)
        for value in references:
            axes.axhline(value, color=_MUTED, linewidth=1.1, linestyle=(0, (1, 2.5)), zorder=1)
        _dress(figure, axes, percent, x_label)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return _inline(written.getvalue(), name, alt)


def downsample(points: Points, limit: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of at most ``limit`` points and gaps: each stretch gives its lowest and its highest point, in order.

    Gaps are NaN and survive where a stretch holds nothing else; points with a non-finite x are dropped.
    """
    table = np.array([(x, math.nan if y is None else y) for x, y in points], dtype=np.float64).reshape(-1, 2)
    table[~(np.abs(table) < _HUGE)] = math.nan
    table = table[np.isfinite(table[:, 0])]
    x, y = table.T
    if len(x) <= limit:
        return x, y
    keep: list[int] = []
    for stretch in np.array_split(np.arange(len(x)), limit // 2):
        finite = stretch[np.isfinite(y[stretch])]
        chosen = (
            {int(finite[y[finite].argmin()]), int(finite[y[finite].argmax()])} if len(finite) else {int(stretch[0])}
        )
        keep += sorted(chosen)
    return x[keep], y[keep]


def _draw(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], style: int) -> None:
    color, finite = f"{_SERIES}{style}", np.isfinite(y)
    axes.plot(x, y, color=color, linewidth=1.8, linestyle=_DASHES[style], zorder=3)
    if finite.sum() > _MAX_MARKED:
        # A line needs two neighbours; a point between two gaps would vanish without a marker.
        left, right = np.r_[False, finite[:-1]], np.r_[finite[1:], False]
        finite &= ~left & ~right
    axes.plot(x[finite], y[finite], color=color, linestyle="none", marker=_MARKERS[style], markersize=4, zorder=4)


def _stack(
    axes: Axes, arrays: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], styles: Mapping[str, int]
) -> None:
    floor: NDArray[np.float64] | float = 0.0
    for label, (x, y) in arrays.items():
        color, top = f"{_SERIES}{styles[label] % NUM_STYLES}", floor + np.nan_to_num(y)
        axes.fill_between(x, floor, top, facecolor=color, alpha=0.55, linewidth=0, zorder=2)
        axes.plot(x, top, color=color, linewidth=1.2, zorder=3)
        floor = top


def _dress(figure: Figure, axes: Axes, percent: bool, x_label: str) -> None:
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.tick_params(colors=_MUTED, length=0, labelsize=11)
    axes.tick_params(axis="x", length=3)
    axes.margins(x=0.03, y=0.08)
    axes.set_xlabel(x_label, color=_MUTED, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g}\u00a0%" if percent else f"{v:.5g}"))


def _inline(svg: str, name: str, alt: str) -> Markup:
    """The plot rebuilt from the few elements and attributes that a plot needs: no metadata, no address, no script."""
    root = _rebuilt(ElementTree.fromstring(svg), name)
    del root.attrib["width"], root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": alt, "class": "plot"}
    # Text is escaped by ElementTree; jinja must not escape the elements a second time.
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def _rebuilt(element: ElementTree.Element, name: str) -> ElementTree.Element:
    copy = ElementTree.Element(_local(element.tag))
    for key, value in element.attrib.items():
        if _local(key) == "href" and value.startswith("#"):
            copy.attrib["href"] = f"#{name}-{value[1:]}"
        elif key == "id" and copy.tag in ("path", "clipPath"):
            copy.attrib["id"] = f"{name}-{value}"
        elif key in _ATTRIBUTES:
            copy.attrib[key] = _themed(value.replace("url(#", f"url(#{name}-"))
    copy.text = element.text if copy.tag == "text" else None
    copy.extend(_rebuilt(child, name) for child in element if _local(child.tag) in _ELEMENTS)
    return copy


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _themed(value: str) -> str:
    for pattern, variable in _VARIABLES:
        value = pattern.sub(variable, value)
    return _FONT.sub("", value)


def standalone(plot: Markup, keys: Sequence[tuple[int | None, str]]) -> str:
    """A plot of ``line_plot`` as a file of its own, in light and dark, with its legend (style and label) below."""
    root = ElementTree.fromstring(plot)
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    row = 18
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height + row * len(keys) + 8:g}"}
    style = ElementTree.Element("style")
    style.text = f"svg{{font-family:sans-serif;{_LIGHT}}} @media (prefers-color-scheme: dark) {{svg{{{_DARK}}}}}"
    root.insert(0, style)
    for number, (colour, label) in enumerate(keys):
        y = height + row * (number + 0.6)
        variable = "var(--muted)" if colour is None else f"var(--s{colour})"
        mark = {"x": "12", "y": f"{y - 5:g}", "width": "22", "height": "4", "style": f"fill: {variable}"}
        ElementTree.SubElement(root, "rect", mark)
        ElementTree.SubElement(
            root,
            "text",
            {"x": "42", "y": f"{y:g}", "style": "fill: var(--muted); font-size: 12px; font-family: sans-serif"},
        ).text = visible(label)
    return ElementTree.tostring(root, encoding="unicode") + "\n"

"""Tables as text: the same cells for Markdown, the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table as Grid
from rich.text import Text

from skd.compare.results import Contrast, Row, Table

__all__ = ["HEADINGS", "cells", "grid", "markdown", "title"]

HEADINGS = (
    "method",
    "score %",
    "95 %",
    "by seed",
    "vs reference",
    "95 % items",
    "95 % items and seeds",
    "p (Holm)",
    "verdict",
    "rank",
    "steps",
    "tokens",
    "seconds",
    "CPU s",
    "teacher GFLOP",
)
_RANKS = {"best": "best", "tie": "tie with best", "behind": "behind"}
_BUDGETS = {
    "steps": "equal steps",
    "seconds": "equal seconds",
    "cpu_seconds": "equal CPU seconds",
    "teacher_flops": "equal teacher FLOPs",
}


def title(table: Table) -> str:
    """What the table is about, in one line."""
    seeds = f"{len(table.seeds)} seed{'s' if len(table.seeds) > 1 else ''}"
    models = "".join(f", {role} {_percent(score)} %" for role, score in table.models.items())
    return f"{table.setting}, {_BUDGETS[table.budget]}: {table.task}, {table.n:,} items, {seeds}{models}"


def cells(row: Row) -> list[str]:
    """One text for each of ``HEADINGS``."""
    contrast = row.against_reference
    flops = "" if row.teacher_flops is None else f"{row.teacher_flops / 1e9:,.0f}"
    return [
        row.method,
        _percent(row.score),
        f"{_percent(row.interval[0])} to {_percent(row.interval[1])}",
        " ".join(_percent(score) for score in row.by_seed),
        *(["reference", "", "", "", ""] if contrast is None else _contrast(contrast)),
        _RANKS[row.rank],
        f"{row.steps:,.0f}",
        f"{row.tokens:,.0f}",
        f"{row.seconds:,.1f}",
        f"{row.cpu_seconds:,.1f}",
        flops,
    ]


def markdown(table: Table) -> str:
    """A Markdown table below its title; the best and its ties in bold."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for row in table.rows:
        method, *rest = (text.replace("|", "\\|") for text in cells(row))
        lines.append("| " + " | ".join([f"**{method}**" if row.rank != "behind" else method, *rest]) + " |")
    return f"### {title(table)}\n\n" + "\n".join(lines) + "\n"


def grid(table: Table) -> Grid:
    """For a terminal of 80 columns: ``*`` is the best, ``=`` a tie with it."""
    shown = {"method": 0, "score": 1, "vs ref.": 4, "95 %, seeds": 6, "p": 7, "verdict": 8, "CPU s": 13}
    drawn = Grid(title=Text(title(table)), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    drawn.add_column("", no_wrap=True, min_width=1)
    for heading, i in shown.items():
        drawn.add_column(heading, justify="left" if i in (0, 8) else "right", no_wrap=True)
    for row in table.rows:
        mark, style = {"best": ("*", "bold green"), "tie": ("=", ""), "behind": ("", "dim")}[row.rank]
        texts = cells(row)
        drawn.add_row(Text(mark), *(Text(texts[i]) for i in shown.values()), style=style)
    return drawn


def _contrast(contrast: Contrast) -> list[str]:
    word = {"a": "wins", "b": "loses", "tie": "tie"}[contrast.verdict]
    seeds = contrast.over_seeds
    return [
        _signed(contrast.difference),
        _range(contrast.over_items),
        "one seed" if seeds is None else _range(seeds),
        "<0.0001" if contrast.p_holm < 1e-4 else f"{contrast.p_holm:.4f}",
        word,
    ]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"


def _range(interval: Sequence[float]) -> str:
    return f"{_signed(interval[0])} to {_signed(interval[1])}"

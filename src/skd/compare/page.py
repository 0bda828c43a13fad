"""From tables and cells to the page, the plots and the notes that go with every table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from skd.compare.results import Row, Table
from skd.compare.run import Comparison, Finished
from skd.compare.wording import title
from skd.report.compare import ComparedMethod, ComparedTable, ComparisonPage, Curves, drawn
from skd.report.plots import Points, standalone
from skd.text import write_text

__all__ = ["NOTES", "page_of", "write_plots"]

_NUM_PLOTTED = 7
_AXES = {
    "tokens": "response tokens trained on",
    "seconds": "seconds of training",
    "cpu_seconds": "CPU seconds of training",
}

NOTES = (
    "All methods start from the same student in a setting and see the same rows in the same order by seed.",
    "Scores are means over the seeds; their interval redraws the items (bootstrap), for these students.",
    "p is McNemar's exact test with an item's seeds together (the sign of the item's summed difference is a fair coin "
    "if two methods are alike), corrected by Holm over all methods against the reference, or over all pairs for ranks.",
    "The interval over items and seeds adds the spread between seeds, with the degrees of freedom that so few seeds "
    "give (Satterthwaite). A method wins only when p is below 5 % after correction and that interval leaves out 0; "
    "everything else is called a tie.",
    "Seconds are wall time of the optimiser steps on one machine, without loading, validation and export. Teacher "
    "FLOPs are 2 x parameters x tokens read, prompts and thrown-away drafts included, attention not.",
)


def page_of(comparison: Comparison, tables: Sequence[Table], command: str) -> ComparisonPage:
    """The page of what is finished."""
    records = [one.record for by_key in comparison.cells.values() for cells in by_key.values() for one in cells]
    versions = records[0]["versions"] if records else {}
    commits = dict.fromkeys(str(record["commit"])[:12] for record in records)
    dates = dict.fromkeys(str(record["date"]) for record in records)
    tuned = [
        f"{setting} / {method} is run with {_text(changes)}, the best of as many trials as every method had."
        for (setting, method), changes in comparison.tuned.items()
    ]
    return ComparisonPage(
        name=comparison.plan.name,
        tables=[_table(table) for table in tables],
        curves=list(_curves(comparison)),
        notes=[*NOTES, *tuned],
        command=command,
        facts={"commit": ", ".join(commits), "date": ", ".join(dates), **versions},
    )


def write_plots(comparison: Comparison, directory: Path) -> list[Path]:
    """Each plot as an SVG file of its own."""
    written = []
    for figure in drawn(list(_curves(comparison))):
        keys = [(key.style, key.label) for key in figure.keys]
        written.append(write_text(directory / f"{_file_name(figure.title)}.svg", standalone(figure.plot, keys)))
    return written


def _file_name(text: str) -> str:
    return "-".join("".join(character if character.isalnum() else " " for character in text).split())


def _text(changes: Mapping[str, object]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in changes.items())


def _table(table: Table) -> ComparedTable:
    best = next(row.method for row in table.rows if row.rank == "best")
    ties = [row.method for row in table.rows if row.rank == "tie"]
    lead = f"{best} has the best mean" + (f", a tie with {', '.join(ties)}." if ties else ", ahead of all others.")
    if len(ties) == len(table.rows) - 1:
        lead = f"All {len(table.rows)} methods are a tie; {best} has the best mean."
    lead += f" Reference: {table.reference}."
    if marks := [f"{role} ({_score(score)})" for role, score in table.models.items()]:
        lead += f" Dotted: {' and '.join(marks)}."
    return ComparedTable(title(table), lead, [_method(row) for row in table.rows], tuple(table.models.values()))


def _score(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _method(row: Row) -> ComparedMethod:
    contrast = row.against_reference
    low, high = (None, None) if contrast is None else contrast.over_seeds or contrast.over_items
    return ComparedMethod(
        name=row.method,
        score=row.score,
        low=row.interval[0],
        high=row.interval[1],
        by_seed=row.by_seed,
        difference=None if contrast is None else contrast.difference,
        difference_low=low,
        difference_high=high,
        p=None if contrast is None else contrast.p_holm,
        verdict="" if contrast is None else {"a": "wins", "b": "loses", "tie": "tie"}[contrast.verdict],
        rank=row.rank,
        steps=row.steps,
        seconds=row.seconds,
    )


def _curves(comparison: Comparison) -> Iterator[Curves]:
    config = comparison.plan.config
    methods = config.plotted or tuple(config.methods)[:_NUM_PLOTTED]
    by_key = comparison.cells.get("steps", {})
    for setting in config.settings:
        cells = {method: by_key[setting, method] for method in methods if by_key.get((setting, method))}
        for axis, label in _AXES.items():
            series = {method: _series(mine, axis) for method, mine in cells.items()}
            if any(series.values()):
                yield Curves(
                    f"{setting}: score by {label.removesuffix(' of training').removesuffix(' trained on')}",
                    label,
                    series,
                )


def _series(cells: Sequence[Finished], axis: str) -> Points:
    """Mean score by mean cost, over the seeds, at each validation that all of them have."""
    curves = [one.record["curve"] for one in cells]
    return [
        (fmean(p[axis] for p in points), fmean(p["score"] for p in points)) for points in zip(*curves, strict=False)
    ]

"""The page of one training run, or of several side by side, made from what their directories hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skd.report.curves import of_one, of_several, others
from skd.report.page import points, render_page
from skd.report.plots import NUM_STYLES
from skd.report.records import Document, RunRecord, count_snapshots, read_run, read_snapshots, require_run
from skd.report.scores import ScoreRow, grouped
from skd.report.timeline import MAX_TRACKS, Timeline, Track, amounts, timeline
from skd.report.tokens import Budget
from skd.text import shortened, write_text

__all__ = ["render_runs", "write_runs"]

PERCENT = "\u00a0%"
MAX_BYTES = 5_000_000
_SHARES = (1.0, 0.5, 0.25, 0.1, 0.0)
"""Of the responses, tokens and samples that a page usually has room for."""
_DOCUMENTS = 120_000
"""Characters of configurations and provenance on a page."""


@dataclass(frozen=True)
class Tile:
    """A headline number: what it is now, and what it was at first."""

    title: str
    value: str
    before: str = ""
    main: bool = False
    """Set off from the others."""


@dataclass(frozen=True)
class Row:
    """A run as a line of the table."""

    name: str
    style: int
    cells: list[tuple[str, str]]
    """(heading, text)"""


def write_runs(runs: Sequence[str | Path], path: str | Path | None = None) -> Path:
    """Write the page of one run, by default to ``RUN/report.html``, or of several, by default to ``report.html``.

    Parts that are missing or unreadable are named on the page. Raises CheckpointError when a directory is none or
    holds nothing of a run, ResourceError when the page cannot be written.
    """
    directories = [Path(run) for run in runs]
    for directory in directories:
        require_run(directory)
    default = directories[0] / "report.html" if len(directories) == 1 else Path("report.html")
    return write_text(Path(path) if path else default, render_runs(directories))


def render_runs(directories: Sequence[Path]) -> str:
    """The page as HTML text, below 5 MB: where text is so long or so odd that it would be more, less of it is shown."""
    names = _names(directories)
    runs = [read_run(directories[i], name, i % NUM_STYLES) for i, name in enumerate(names)]
    page = ""
    for share in _SHARES:
        page = _rendered([_less(run, share) for run in runs], Budget().part(share))
        if len(page.encode()) < MAX_BYTES:
            break
    return page


def _less(run: RunRecord, share: float) -> RunRecord:
    """The run with a share of its samples, newest first, and a list of its own for what turns out to be missing."""
    kept = run.samples[len(run.samples) - round(share * len(run.samples)) :]
    return replace(run, samples=kept, missing=list(run.missing))


def _rendered(runs: Sequence[RunRecord], budget: Budget) -> str:
    alone = runs[0] if len(runs) == 1 else None
    view = _timeline(runs, budget)
    return render_page(
        "run.html",
        name=alone.name if alone else f"{len(runs)} runs side by side",
        alone=alone,
        lead=_lead(alone) if alone else "",
        tiles=_tiles(alone) if alone else [],
        rows=[] if alone else [_row(run) for run in runs],
        figures=of_one(alone.metrics) if alone else of_several(runs),
        others=others(alone.metrics) if alone else [],
        scores=grouped((run.name, run.style, run.scores) for run in runs),
        view=view,
        documents=_documents(runs),
        missing=[line if alone else f"{run.name}: {line}" for run in runs for line in run.missing],
    )


def _names(directories: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all runs apart."""
    paths = [directory.resolve().parts for directory in directories]
    longest = max(map(len, paths))
    for length in range(1, longest + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{number} {name}" for number, name in enumerate(names, 1)]


def _timeline(runs: Sequence[RunRecord], budget: Budget) -> Timeline | None:
    """The token view; of the first runs where there are too many to look at."""
    shown = runs[:MAX_TRACKS]
    if len(runs) > len(shown):
        runs[0].missing.append(f"token view: only the first {len(shown)} of {len(runs)} runs are in it")
    most = amounts(len(shown), max(count_snapshots(run.directory) for run in shown), budget.responses)
    tracks = [Track(run.name, run.style, read_snapshots(run, budget, most.stops, most.prompts)) for run in shown]
    return timeline(tracks, budget)


_HEADLINES = (
    ("Validation score", "score", "validation/score", True),
    ("Validation loss", "loss", "validation/loss", False),
    ("Drafted tokens kept", "drafts kept", "validation/acceptance_rate", True),
    ("Written by the teacher", "by teacher", "validation/replaced_share", True),
)
"""(title, heading of a column, key, whether it is a share)"""


def _text(value: float | None, percent: bool) -> str:
    return "–" if value is None else points(value) if percent else f"{value:,.4g}"


def _tiles(run: RunRecord) -> list[Tile]:
    metrics = run.metrics
    step = "–" if metrics.last_step is None else f"{metrics.last_step:,}"
    tiles = [*map(_score_tile, run.scores[:1]), Tile("optimiser steps", step)]
    for title, _, key, percent in _HEADLINES:
        now, before = metrics.last(key), metrics.first(key)
        if now is not None:
            moved = before is not None and len(metrics.series[key]) > 1
            tiles.append(Tile(title, _text(now, percent), f"from {_text(before, percent)}" if moved else ""))
    seconds = metrics.total("seconds")
    return [*tiles, Tile("seconds in steps", f"{seconds:,.0f}")] if seconds else tiles


def _score_tile(row: ScoreRow) -> Tile:
    value, low, high = (_text(number, row.is_share) for number in (row.value, row.low, row.high))
    title = f"{row.task}: {row.name.replace('_', ' ')}"
    return Tile(title, value, f"95\u00a0% interval {low.removesuffix(PERCENT)} to {high} \u00b7 n {row.n:,}", main=True)


def _lead(run: RunRecord) -> str:
    """One sentence that says what was done, of the parts that are known."""
    method, teacher, student = run.setting("method"), run.setting("teacher", "path"), run.setting("student", "path")
    if not method or not student:
        return ""
    pair = f"{teacher} taught {student}" if teacher else f"{student} was trained"
    tokens = run.metrics.total("tokens")
    amount = f", {tokens:,.0f} response tokens" if tokens else ""
    return f"{pair} by {method} in {run.metrics.last_step or 0:,} steps{amount}."


def _row(run: RunRecord) -> Row:
    metrics = run.metrics
    cells = [("method", run.setting("method") or "–"), ("seed", run.setting("train", "seed") or "–")]
    cells += [("steps", "–" if metrics.last_step is None else f"{metrics.last_step:,}")]
    cells += [(heading, _text(metrics.last(key), percent)) for _, heading, key, percent in _HEADLINES]
    return Row(run.name, run.style, [*cells, ("seconds", _text(metrics.total("seconds"), False))])


def _documents(runs: Sequence[RunRecord]) -> list[Document]:
    """All of a single run's; of several, as much of each configuration as the page has room for."""
    if len(runs) == 1:
        return runs[0].documents
    size = _DOCUMENTS // len(runs)
    configs = [(run.name, document) for run in runs for document in run.documents[:1]]
    return [Document(f"{name}: {document.name}", shortened(document.text, size)) for name, document in configs]

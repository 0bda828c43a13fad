"""``skd compare``: a plan in, tables, plots and a page out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from skd.compare.plan import load_plan
from skd.text import visible, write_text

__all__ = ["compare", "show_states"]


def compare(
    plan_path: str | Path, overrides: Sequence[str] = (), *, redo: bool = False, only_report: bool = False
) -> Path:
    """Run what is missing of a plan, then write its tables and the page; returns the page.

    Writes to the plan's ``output``: ``cells.jsonl`` (one line per cell, as they finish), ``results.json``,
    ``results.md``, ``plots/*.svg`` and ``index.html``.

    overrides: changes of the plan, ``"base.train.max_steps=200"``.
    redo: cells whose config changed are run again; the old ones are kept aside. Otherwise they are refused.
    only_report: run nothing; tables and page of the cells that are finished.

    Raises ConfigError for a wrong plan, CheckpointError (SKD-K14) when cells are stale, and what training and
    evaluation raise. SystemExit 128 + n after signal n; the same command goes on.
    """
    plan = load_plan(plan_path, overrides)
    # Loads torch, which a mistake need not wait for.
    from skd.compare.page import NOTES, page_of, write_plots
    from skd.compare.results import tables
    from skd.compare.run import Comparison
    from skd.compare.wording import grid, markdown
    from skd.report.compare import write_comparison
    from skd.train.lock import RunLock

    console = Console()

    def say(text: str) -> None:
        console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    comparison = Comparison(plan, Path(plan.config.output))
    if only_report:
        comparison.survey()
    else:
        with RunLock(comparison.output):
            comparison.run(redo=redo, say=say)
    found = tables(comparison)
    for table in found:
        console.print(grid(table))
    record = {"plan": plan.name, "tables": [table.record() for table in found]}
    write_text(comparison.output / "results.json", json.dumps(record, indent=1) + "\n")
    notes = "".join(f"- {note}\n" for note in NOTES)
    write_text(comparison.output / "results.md", "\n".join([*map(markdown, found), notes]))
    write_plots(comparison, comparison.output / "plots")
    page = page_of(comparison, found, " ".join(["skd compare", str(plan_path), *overrides]))
    where = write_comparison(page, comparison.output / "index.html")
    say(f"Numbers: {comparison.output / 'results.json'}   Page: {where}")
    return where


def show_states(plan_path: str | Path, overrides: Sequence[str] = ()) -> None:
    """Print every job that is known of with its state, and run nothing."""
    plan = load_plan(plan_path, overrides)
    from skd.compare.run import Comparison

    for job, state in Comparison(plan, Path(plan.config.output)).survey():
        print(visible(f"{job.name}: {state}"))

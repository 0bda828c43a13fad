"""Self-contained HTML pages of runs and of the quickstart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skd.report.quickstart import MethodRow, QuickstartPage, write_quickstart
from skd.report.run import write_runs

__all__ = ["MethodRow", "QuickstartPage", "write", "write_quickstart", "write_runs"]


def write(source: str | Path | Sequence[str | Path] | QuickstartPage, path: str | Path | None = None) -> Path:
    """Write the page of a run directory, of several side by side, or of a quickstart, and return where it is.

    ``path`` defaults to ``report.html``, in the directory of a single run or here. Raises CheckpointError when there
    is no such run, ResourceError when the page cannot be written.
    """
    if isinstance(source, QuickstartPage):
        return write_quickstart(source, path or "report.html")
    return write_runs([source] if isinstance(source, str | Path) else source, path)

"""Self-contained HTML pages of a run and of the quickstart."""

from __future__ import annotations

from pathlib import Path

from skd.report.quickstart import MethodRow, QuickstartPage, write_quickstart
from skd.report.run import write_run

__all__ = ["MethodRow", "QuickstartPage", "write", "write_quickstart", "write_run"]


def write(source: str | Path | QuickstartPage, path: str | Path | None = None) -> Path:
    """Write the page of a run directory, or of a quickstart, and return where it is.

    ``path`` defaults to ``report.html``, in the run directory or here. Raises CheckpointError when there is no such
    run, ResourceError when the page cannot be written.
    """
    if isinstance(source, QuickstartPage):
        return write_quickstart(source, path or "report.html")
    return write_run(source, path)

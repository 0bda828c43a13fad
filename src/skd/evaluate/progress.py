"""How far an evaluation is: a live bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from skd.text import visible

__all__ = ["Advance", "progress"]

SECONDS_BETWEEN_LINES = 10.0
Advance = Callable[[int], None]
"""Called with the number of items that are done."""


@contextmanager
def progress(name: str, total: int, done: int, enabled: bool) -> Iterator[Advance]:
    """Show the progress of an evaluation of ``total`` items, of which ``done`` came from an earlier process."""
    console = Console(stderr=True)
    if not enabled:
        yield lambda count: None
        return
    if done:
        console.print(Text(f"{visible(name)}: {done:,} of {total:,} items are there already"))
    if not console.is_terminal:
        yield _lines(console, visible(name), total)
        return
    columns = (TextColumn(visible(name), markup=False), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda count: bar.update(task, completed=count)


def _lines(console: Console, name: str, total: int) -> Advance:
    said = time.monotonic()

    def advance(count: int) -> None:
        nonlocal said
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            console.print(Text(f"{visible(name)}: {count:,} of {total:,} items"))

    return advance

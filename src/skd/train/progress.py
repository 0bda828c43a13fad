"""The one progress display of a run: a live bar on a terminal, plain lines elsewhere, on standard error."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from skd.text import visible

__all__ = ["Display"]

SECONDS_BETWEEN_LINES = 5.0
"""Without a terminal a line per step would bury the log."""


class _Quiet(Console):
    """Standard error, which stops no run when its reader leaves (``skd train ... 2>&1 | head``): it goes quiet."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Display:
    """Shows step, loss, acceptance, tokens per second and time left.

    Args:
        enabled: False shows nothing at all (other ranks, runs inside other programs).
        console: where to; standard error by default.
    """

    def __init__(self, *, enabled: bool, console: Console | None = None) -> None:
        self._enabled = enabled
        self._console = console or _Quiet(stderr=True)
        self._bar: Progress | None = None

    @contextmanager
    def running(self, total_steps: int, first_step: int, unit: str = "step") -> Iterator[None]:
        """Show the progress of a run of which ``first_step`` steps are done, as long as the block lasts."""
        self._total, self._first, self._started, self._unit = total_steps, first_step, time.monotonic(), unit
        self._said = -math.inf
        if not (self._enabled and self._console.is_terminal):
            yield
            return
        columns = (TextColumn(unit), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        with Progress(*columns, TimeRemainingColumn(), console=self._console) as self._bar:
            self._task = self._bar.add_task("", total=total_steps, completed=first_step)
            yield
        self._bar = None

    def step(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        """Show that ``step`` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=_summary(metrics))
        elif step == self._total or time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self.say(f"{self._unit} {step}/{self._total}  {_summary(metrics)}  left {self._time_left(step)}")

    def say(self, text: str | Text) -> None:
        """Print a line above the bar. Mark-up in it means nothing, and control characters are escapes."""
        if self._enabled:
            # Standard error may be a file on a full disk; that stops no run.
            with suppress(OSError):
                self._console.print(text if isinstance(text, Text) else Text(visible(text)), soft_wrap=True)

    def warn(self, warnings: Sequence[str]) -> None:
        """Print warnings, a line each."""
        for warning in warnings:
            self.say(Text(visible(warning), style="yellow"))

    def response(self, title: str, pieces: Sequence[str], authors: Sequence[int]) -> None:
        """Print a response, each token coloured by its author."""
        if not self._enabled:
            return
        from skd.display import coloured_response

        self.say(Text(f"{title} ", style="bold") + coloured_response(pieces, authors))

    def _time_left(self, step: int) -> str:
        seconds = (time.monotonic() - self._started) / max(step - self._first, 1) * (self._total - step)
        return str(timedelta(seconds=round(seconds)))


def _summary(metrics: Mapping[str, float | int | None]) -> str:
    parts = [f"loss {metrics['loss']:.4f}"] if "loss" in metrics else []
    acceptance = metrics.get("acceptance_rate")
    if acceptance is not None and math.isfinite(acceptance):
        parts.append(f"acceptance {acceptance:.1%}")
    if (rate := metrics.get("tokens_per_second")) is not None:
        return "  ".join([*parts, f"{rate:,.0f} tokens/s"])
    return "  ".join([*parts, f"{metrics['tokens']:,} tokens"])

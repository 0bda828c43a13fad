"""A trace of the first steps, to be looked at in chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Trace"]


class Trace:
    """Every tensor operation of the next ``steps`` steps, written to ``trace.json`` of the run directory.

    Use it as a context manager and tell it of each step; with ``steps`` 0 it does nothing. Steps that are traced take
    longer, and their seconds in the logs say so. A run that ends before has the steps up to there.
    """

    def __init__(self, run_dir: Path, steps: int, say: Callable[[str], None]) -> None:
        self._path, self._left, self._say = run_dir / "trace.json", steps, say
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profiler = profile(activities=activities) if steps else None

    def stepped(self) -> None:
        """A step was taken."""
        self._left -= 1
        if self._left == 0:
            self._write()

    def _write(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        beside = self._path.with_name(f".{self._path.name}.new")
        profiler.export_chrome_trace(str(beside))
        os.replace(beside, self._path)
        self._say(f"wrote {self._path}; open it in chrome://tracing or ui.perfetto.dev")

    def __enter__(self) -> Trace:
        if self._profiler is not None:
            self._profiler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()

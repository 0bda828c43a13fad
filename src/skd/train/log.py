"""What a run writes down: metrics.jsonl is the truth, samples.jsonl the sample log, TensorBoard a copy to look at."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from skd.train.files import write_atomic

__all__ = ["JsonLines", "RunLog"]


class JsonLines:
    """A file of one JSON object per line, appended and flushed.

    ``after_step``: opening drops what a killed run wrote after this step, and a half last line, so that a resumed run
    has every step once.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        self._path = path
        if path.exists():
            write_atomic(path, "".join(line for line in _whole_lines(path) if json.loads(line)["step"] <= after_step))
        self._file = path.open("a", encoding="utf-8")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; numbers that are not finite become null, which is what JSON has."""
        self._file.write(json.dumps({name: _finite(value) for name, value in row.items()}) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Make the rows durable: a checkpoint must not be ahead of the log."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return lines


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunLog:
    """The logs of one run directory, from ``step`` on. Use it as a context manager."""

    def __init__(self, run_dir: Path, step: int, *, tensorboard: bool) -> None:
        self.metrics_path = run_dir / "metrics.jsonl"
        self._metrics = JsonLines(self.metrics_path, after_step=step)
        self._samples = JsonLines(run_dir / "samples.jsonl", after_step=step)
        self._board: Any = None
        if tensorboard:
            # Importing it costs a second, and most tests and quick runs do without.
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def metrics(self, kind: str, step: int, values: Mapping[str, float | int | None]) -> None:
        """One row of metrics.jsonl, ``{"kind", "step", ...}``, and the same numbers for TensorBoard."""
        self._metrics.append({"kind": kind, "step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                if value is not None and math.isfinite(value):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def samples(self, step: int, row: Mapping[str, Any]) -> None:
        """One row of samples.jsonl: which rows of the data were trained, and at times a response to look at."""
        self._samples.append({"step": step, **row})

    def sync(self) -> None:
        self._metrics.sync()
        self._samples.sync()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._samples.close()
        if self._board is not None:
            self._board.close()

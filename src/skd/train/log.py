"""What a run writes down, one JSON object per line, and a copy of the numbers for TensorBoard.

metrics.jsonl is the truth; trained.jsonl says which rows of the data each step trained; samples.jsonl holds a response
now and then, to look at.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from skd.files import write_atomic

__all__ = ["JsonLines", "Metrics", "RunLog"]

Metrics = Mapping[str, float | int | None]


class JsonLines:
    """A file of one JSON object per line, appended and flushed.

    ``after_step``: opening drops what a killed run wrote after this step, and every line that is no row of ours, such
    as a half last one, so that a resumed run has every step once.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        self._path = path
        if path.exists():
            write_atomic(path, "".join(line for line in _whole_lines(path) if _step(line) <= after_step))
        self._file = path.open("a", encoding="utf-8")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; numbers that are not finite become null, which is what JSON has."""
        self._file.write(json.dumps(_finite(row)) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Make the rows durable."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return lines


def _step(line: str) -> float:
    """The step of a row; infinity for a line that is none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return math.inf
    return step if isinstance(step, int) else math.inf


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunLog:
    """The logs of one run directory, continued after ``step``. Use it as a context manager.

    With ``enabled`` False (all ranks but the main one) nothing is opened or written.
    """

    def __init__(self, run_dir: Path, *, after_step: int, tensorboard: bool, enabled: bool = True) -> None:
        names = ("metrics", "trained", "samples") if enabled else ()
        self._files = {name: JsonLines(run_dir / f"{name}.jsonl", after_step=after_step) for name in names}
        self._board: Any = None
        if tensorboard and enabled:
            # Importing it costs a second, and most tests and quick runs do without.
            from torch.utils.tensorboard import SummaryWriter

            purge_step = max(after_step + 1, 0)
            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge_step)

    def training(self, step: int, values: Metrics) -> None:
        """A row ``{"step", "loss", ...}`` of metrics.jsonl."""
        self._append("metrics", {"step": step, **values})
        self._to_board("train", step, values)

    def validation(self, step: int, values: Metrics) -> None:
        """A row ``{"step", "validation": {"loss", ...}}`` of metrics.jsonl."""
        self._append("metrics", {"step": step, "validation": dict(values)})
        self._to_board("validation", step, values)

    def trained(self, step: int, epochs: Sequence[int], sample_ids: Sequence[int]) -> None:
        """A row of trained.jsonl: the epoch and the data row of each prompt of the step."""
        self._append("trained", {"step": step, "epochs": list(epochs), "sample_ids": list(sample_ids)})

    def sample(self, step: int, sample: Mapping[str, Any]) -> None:
        """A row of samples.jsonl."""
        self._append("samples", {"step": step, **sample})

    def sync(self) -> None:
        """Make all rows durable: a checkpoint must not be ahead of the logs."""
        for file in self._files.values():
            file.sync()

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if name in self._files:
            self._files[name].append(row)

    def _to_board(self, group: str, step: int, values: Metrics) -> None:
        if self._board is not None:
            for name, value in values.items():
                if value is not None and math.isfinite(value):
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()

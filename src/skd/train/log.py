"""What a run writes down, one JSON object per line, with copies for trackers.

metrics.jsonl is the truth; trained.jsonl says which rows of the data each step trained; samples.jsonl holds a response
now and then, to look at, and tokens/ what both models thought of the validation's responses.

A log that cannot be written stops no run: it is said once, and rows wait in memory for the disk to come back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from skd.files import write_atomic
from skd.train.trackers import Trackers

__all__ = ["JsonLines", "Metrics", "RunLog"]

Metrics = Mapping[str, float | int | None]


class JsonLines:
    """A file of one JSON object per line, appended and written at once.

    ``after_step``: opening drops what a killed run wrote after this step, and every line that is no row of ours, such
    as a half last one, so that a resumed run has every step once. With ``validated`` False the validation of that very
    step is dropped too, since it will be done again.
    """

    def __init__(self, path: Path, *, after_step: int, validated: bool = True) -> None:
        if path.exists():
            kept = [line for line in _whole_lines(path) if _belongs(line, after_step, validated)]
            write_atomic(path, "".join(kept))
        # Without a buffer of Python's, whose rest would be written, and fail, once more when it is closed.
        self._file = path.open("ab", buffering=0)
        self._unwritten = b""

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; numbers that are not finite become null, which is what JSON has.

        Raises OSError when it cannot be written; it is then written together with the next row that can.
        """
        self._unwritten += (json.dumps(_finite(row)) + "\n").encode()
        self.flush()

    def flush(self) -> None:
        """Write what earlier faults of the disk left unwritten. Raises OSError."""
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def sync(self) -> None:
        """Make the rows durable. Raises OSError."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):
            self.flush()
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return lines


def _belongs(line: str, after_step: int, validated: bool) -> bool:
    """Whether a line is a row of the steps up to ``after_step``."""
    try:
        row = json.loads(line)
        step = row["step"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return False
    if step == after_step and not validated and "validation" in row:
        return False
    return isinstance(step, int) and step <= after_step


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunLog:
    """The logs of one run directory, continued after a step (see ``JsonLines``). Use it as a context manager.

    ``trackers`` get the same numbers and are closed at the end. ``say`` is told, once, that a log cannot be written;
    ``callbacks`` of every row of metrics. With ``enabled``
    False (all ranks but the main one) nothing is opened or written.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        after_step: int,
        trackers: Trackers | None = None,
        validated: bool = True,
        say: Callable[[str], None] = print,
        callbacks: Sequence[Callable[[Mapping[str, Any]], None]] = (),
        enabled: bool = True,
    ) -> None:
        self._run_dir, self._say, self._enabled, self._warned = run_dir, say, enabled, False
        self._callbacks, self._trackers = callbacks, trackers if enabled else None
        names = ("metrics", "trained", "samples") if enabled else ()
        self._files = {
            name: JsonLines(run_dir / f"{name}.jsonl", after_step=after_step, validated=validated) for name in names
        }

    def training(
        self,
        step: int,
        values: Metrics,
        positions: Mapping[str, Sequence[int]] | None = None,
        teachers: Mapping[str, Metrics] | None = None,
    ) -> None:
        """A row ``{"step", "loss", ..., "by_position": {...}}`` of metrics.jsonl; see ``skd.train.positions``. With
        several teachers it has ``"by_teacher": {NAME: {"acceptance_rate", ...}}``, too."""
        self._track("train", step, values)
        nested = {"by_position": positions, "by_teacher": teachers}
        self._metrics({"step": step, **values, **{key: dict(part) for key, part in nested.items() if part}})

    def validation(self, step: int, values: Metrics) -> None:
        """A row ``{"step", "validation": {"loss", ...}}`` of metrics.jsonl."""
        self._track("validation", step, values)
        self._metrics({"step": step, "validation": dict(values)})

    def trained(self, step: int, epochs: Sequence[int], sample_ids: Sequence[int]) -> None:
        """A row of trained.jsonl: the epoch and the data row of each prompt of the step."""
        self._append("trained", {"step": step, "epochs": list(epochs), "sample_ids": list(sample_ids)})

    def sample(self, step: int, sample: Mapping[str, Any]) -> None:
        """A row of samples.jsonl."""
        self._append("samples", {"step": step, **sample})

    def tokens(self, step: int, view: Mapping[str, Any]) -> None:
        """The file tokens/step-N.json; see ``skd.train.validate.token_view``."""
        if not self._enabled:
            return
        directory = self._run_dir / "tokens"
        with self._tolerant("tokens"):
            directory.mkdir(exist_ok=True)
            write_atomic(directory / f"step-{step}.json", json.dumps(view) + "\n")
        if self._trackers is not None:
            self._trackers.completions(step, view)

    def sync(self) -> None:
        """Make all rows durable: a checkpoint must not be ahead of the logs."""
        for name, file in self._files.items():
            with self._tolerant(f"{name}.jsonl"):
                file.sync()

    def _metrics(self, row: Mapping[str, Any]) -> None:
        self._append("metrics", row)
        for tell in self._callbacks if self._enabled else ():
            tell(row)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if name in self._files:
            with self._tolerant(f"{name}.jsonl"):
                self._files[name].append(row)

    def _track(self, group: str, step: int, values: Metrics) -> None:
        if self._trackers is not None:
            self._trackers.numbers(group, step, values)

    @contextmanager
    def _tolerant(self, name: str) -> Iterator[None]:
        """A fault of the disk inside the block is said, the first time, and training goes on."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                place, reason = self._run_dir / name, error.strerror or error
                self._say(
                    f"warning[SKD-L06] {place}: cannot be written ({reason}); training goes on, and rows that were not "
                    "written wait for the disk; free space"
                )
            self._warned = True

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        if self._trackers is not None:
            self._trackers.close()

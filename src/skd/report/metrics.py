"""The series of ``metrics.jsonl``, read as far as the file is whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skd.text import shortened

__all__ = ["Metrics", "read_metrics"]

_NOT_SERIES = {"step", "epoch", "time", "seed"}
_MAX_SERIES = 120
_POSITIONS = ("from", "kept", "replaced", "tokens", "written")
_MAX_RANGES = 64


@dataclass
class Metrics:
    """Every number of the file as a series over steps, and what could not be read."""

    series: dict[str, list[tuple[float, float | None]]] = field(default_factory=dict)
    positions: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    """Step -> counts by range of response positions; see ``skd.train.positions``."""
    last_step: int | None = None
    num_records: int = 0
    problems: list[str] = field(default_factory=list)

    def last(self, key: str) -> float | None:
        """The newest value of a series, None when there is none."""
        return self.series[key][-1][1] if self.series.get(key) else None

    def first(self, key: str) -> float | None:
        """The oldest value of a series, None when there is none."""
        return self.series[key][0][1] if self.series.get(key) else None

    def total(self, key: str) -> float | None:
        """The sum of a series, None when there is none."""
        values = [value for _, value in self.series.get(key, ()) if value is not None]
        return math.fsum(values) if values else None


def read_metrics(path: Path) -> Metrics:
    """The series of a metrics file: one JSON object with a ``step`` per line, nested keys joined by ``/``.

    A step that was run again after a resume counts once, with its newest value; a last line cut by a kill is left
    out. A file that is missing or holds unreadable lines is named in ``problems``, it raises nothing.
    """
    metrics = Metrics()
    if not path.is_file():
        metrics.problems.append(f"curves: there is no {path.name}")
        return metrics
    by_key: dict[str, dict[int, float | None]] = {}
    unreadable = 0
    with path.open("rb") as file:
        for line in file:
            record = _record(line)
            if record is None:
                unreadable += bool(line.strip())
                continue
            metrics.num_records += 1
            step = int(record["step"])
            metrics.last_step = max(step, metrics.last_step or 0)
            if counts := _positions(record.get("by_position")):
                metrics.positions[step] = counts
            for key, value in _numbers(record):
                if key in by_key or len(by_key) < _MAX_SERIES:
                    by_key.setdefault(key, {})[step] = value
    metrics.series = {key: [(float(s), v) for s, v in sorted(values.items())] for key, values in by_key.items()}
    if unreadable:
        metrics.problems.append(f"curves: {unreadable:,} line(s) of {path.name} could not be read and are left out")
    if not metrics.num_records:
        metrics.problems.append(f"curves: {path.name} holds no step")
    return metrics


def _record(line: bytes) -> Mapping[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    whole = isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 1 << 53
    return record if whole else None


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | None]]:
    for name, value in record.items():
        key = prefix + shortened(name, 60)
        if isinstance(value, dict):
            yield from _numbers(value, f"{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key not in _NOT_SERIES:
            yield key, _finite(value)


def _positions(counts: Any) -> dict[str, list[int]] | None:
    """The counts of a step when they are whole: equally long lists of counts."""
    if not isinstance(counts, dict) or not all(isinstance(counts.get(name), list) for name in _POSITIONS):
        return None
    lists = [counts[name] for name in _POSITIONS]
    length = len(lists[0])
    plain = all(type(count) is int and 0 <= count < 1 << 53 for one in lists for count in one[: _MAX_RANGES + 1])
    if not plain or not 0 < length <= _MAX_RANGES or any(len(one) != length for one in lists):
        return None
    return dict(zip(_POSITIONS, lists, strict=True))


def _finite(value: float) -> float | None:
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None

"""Scores that ``skd evaluate --out`` left in a run's directory, each with its interval and what it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skd.text import shortened

__all__ = ["ScoreGroup", "ScoreRow", "grouped", "read_scores"]

_MAX_FILES = 40
_MAX_BYTES = 1 << 20
_BEFORE = "_before"
"""Ends the names of scores of the student as it was before its training; they stand below the others."""
_SMALL = 0.2
"""Shares up to here, such as calibration errors, get an axis of their own instead of one to 100 %."""
_FACTS = ("n", "interval_by", "signature", "decoding", "data", "model", "teacher", "commit", "versions", "seconds")


@dataclass(frozen=True)
class ScoreRow:
    """One score of one run."""

    task: str
    name: str
    value: float
    low: float
    high: float
    n: int
    is_share: bool
    facts: list[tuple[str, str]]
    """Its provenance: decoding, data and its fingerprint, versions, commit."""


@dataclass(frozen=True)
class ScoreGroup:
    """The same score of several runs on one axis."""

    task: str
    name: str
    top: str
    """What stands at the right end of the axis; 0 stands at the left."""
    lines: list[tuple[str, int, ScoreRow, dict[str, float] | None]]
    """(run, style, score, positions of value and interval from 0 to 100, None where they cannot be drawn)."""


def read_scores(directory: Path, missing: list[str]) -> list[ScoreRow]:
    """Every score in ``*.summary.json`` of a run directory and of the folders in it; what cannot be read is named."""
    paths = sorted([*directory.glob("*.summary.json"), *directory.glob("*/*.summary.json")])
    rows: list[ScoreRow] = []
    for path in paths[:_MAX_FILES]:
        try:
            rows += _rows(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            missing.append(f"scores: {path.name} cannot be read: {shortened(f'{type(error).__name__} {error}', 200)}")
    if len(paths) > _MAX_FILES:
        missing.append(f"scores: {len(paths) - _MAX_FILES} more summaries")
    return rows


def _rows(path: Path) -> list[ScoreRow]:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES >> 10} KiB")
    summary = json.loads(path.read_bytes())
    task = str(summary["task"])
    return [_row(task, str(name), score, summary) for name, score in summary["scores"].items()]


def _row(task: str, name: str, score: Mapping[str, Any], summary: Mapping[str, Any]) -> ScoreRow:
    low, high = score["interval_95"]
    both = {**summary, **score}
    facts = [(key, shortened(_text(both[key]), 400)) for key in _FACTS if both.get(key) not in (None, "")]
    numbers = (float(score["value"]), float(low), float(high))
    return ScoreRow(task, name, *numbers, int(score["n"]), bool(score.get("is_share", True)), facts)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def grouped(runs: Iterable[tuple[str, int, Sequence[ScoreRow]]]) -> list[ScoreGroup]:
    """Scores of runs, given with name and style, by task and name of the score, in the order they were met."""
    groups: dict[tuple[str, str], list[tuple[str, int, ScoreRow]]] = {}
    for run, style, rows in runs:
        names = {(row.task, row.name) for row in rows}
        for row in rows:
            after = (row.task, row.name.removesuffix(_BEFORE))
            earlier = row.name.endswith(_BEFORE) and after in names
            key, label = (after, f"{run}, before training") if earlier else ((row.task, row.name), run)
            groups.setdefault(key, []).append((label, style, row))
    return [_group(*key, lines) for key, lines in groups.items()]


def _group(task: str, name: str, lines: list[tuple[str, int, ScoreRow]]) -> ScoreGroup:
    highest = max((row.high for _, _, row in lines if math.isfinite(row.high)), default=1.0)
    shares = all(row.is_share for _, _, row in lines)
    scale = 1.0 if shares and highest > _SMALL else _round_up(highest)
    placed = [(run, style, row, _positions(row, scale)) for run, style, row in lines]
    return ScoreGroup(task, name, f"{100 * scale:g}\u00a0%" if shares else f"{scale:g}", placed)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... and so on in both directions."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999999)


def _positions(row: ScoreRow, scale: float) -> dict[str, float] | None:
    ends = {"value": row.value, "low": row.low, "high": row.high}
    if not all(map(math.isfinite, ends.values())):
        return None
    return {key: 100 * min(1.0, max(0.0, end / scale)) for key, end in ends.items()}

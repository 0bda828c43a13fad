"""Measuring a model on a built-in task: greedy responses, an exact score, and everything needed to repeat it."""

from __future__ import annotations

import difflib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from skd.data.rows import Row, Split
from skd.data.tasks import TASKS, Task
from skd.errors import ConfigError, Problem
from skd.evaluate.statistics import wilson_interval
from skd.sampling import AcceptAll, Warp, interleave
from skd.text import require_writable, shortened, visible, write_text
from skd.versions import versions

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["EvaluationResult", "evaluate"]


@dataclass(frozen=True)
class EvaluationResult:
    """A score on n items, with what it rests on."""

    task: str
    score: float
    """Share of items answered entirely right."""
    interval: tuple[float, float]
    """95 % Wilson interval of the score, as fractions."""
    n: int
    correct: tuple[bool, ...]
    """Per item, in the order of the task's rows: two results with one ``data`` fingerprint can be paired."""
    responses: tuple[str, ...]
    seconds: float
    """Wall time of the generation, loading not counted."""
    provenance: dict[str, Any]
    """model, decoding, data (with fingerprint), versions."""

    def line(self) -> str:
        """The result as one line of a table, safe for a terminal."""
        low, high = self.interval
        model = visible(shortened(str(self.provenance["model"].get("path", "")), 80))
        return (
            f"{self.task:<14} n {self.n:>6,}   {100 * self.score:5.1f} %   "
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f})   {self.seconds:6.1f} s   {model}"
        )


def evaluate(
    model: Pair | str | Path,
    task: str,
    size: int = 1000,
    split: Split = "test",
    out: str | Path | None = None,
    max_new_tokens: int = 64,
    *,
    seed: int = 0,
    slots: int = 256,
) -> EvaluationResult:
    """Greedy exact match of a model on the first ``size`` rows of a task's split.

    model: a pair, whose student is measured, or a model directory, run directory or Hub id. seed: draws the rows;
    decoding needs none.
    out: file for the judged items, one JSON object per line; the score and its provenance go beside it, with the
    suffix ``.summary.json``. Both are replaced whole.

    Raises ConfigError for an unknown task or split; DataError when the size is impossible or a prompt and
    ``max_new_tokens`` exceed the model's context; ModelError when the model cannot be loaded;
    ResourceError, before anything is measured, when ``out`` cannot be written.
    """
    if out is not None:
        require_writable(Path(out))
    rows = _task(task, split).rows(split, size, seed)
    pair = _loaded(model)
    started = time.perf_counter()
    rollout = interleave(
        pair,
        pair.encode([row.prompt for row in rows]),
        gate=AcceptAll(),
        student_warp=Warp(temperature=0.0),
        max_new_tokens=max_new_tokens,
        slots=slots,
        evidence=False,
    )
    seconds = time.perf_counter() - started
    responses = tuple(rollout.text())
    correct = tuple(TASKS[task].score(row, text) for row, text in zip(rows, responses, strict=True))
    provenance = {
        "model": pair.provenance["student"],
        "decoding": {"temperature": 0.0, "max_new_tokens": max_new_tokens, "chat": "auto"},
        "data": {"task": task, "split": split, "size": size, "seed": seed, "fingerprint": _fingerprint(rows)},
        "versions": versions(),
    }
    n, right = len(rows), sum(correct)
    result = EvaluationResult(task, right / n, wilson_interval(right, n), n, correct, responses, seconds, provenance)
    if out is not None:
        _write(Path(out), rows, rollout.truncated.tolist(), result)
    return result


def _task(name: str, split: str) -> Task:
    problems = [
        Problem("SKD-E19", place, f"{value!r} is none of {', '.join(known)}", f"write {_nearest(value, known)}")
        for place, value, known in (("task", name, list(TASKS)), ("split", split, list(get_args(Split))))
        if value not in known
    ]
    if problems:
        raise ConfigError(problems)
    return TASKS[name]


def _nearest(value: str, known: Sequence[str]) -> str:
    return (difflib.get_close_matches(value, known, n=1, cutoff=0.0) or [known[0]])[0]


def _loaded(model: Pair | str | Path) -> Pair:
    if not isinstance(model, str | Path):
        return model
    from skd.models.pair import load_pair

    student = Path(model) / "student"
    return load_pair(None, student if student.is_dir() else model)


def _fingerprint(rows: Sequence[Row]) -> str:
    """SHA-256 of prompts and references in order: equal fingerprints mean equal items."""
    lines = (json.dumps([row.prompt, row.response]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _write(path: Path, rows: Sequence[Row], truncated: Sequence[bool], result: EvaluationResult) -> None:
    items = zip(rows, result.responses, result.correct, truncated, strict=True)
    lines = [
        json.dumps(
            {
                "item": number,
                "prompt": row.prompt,
                "reference": row.response,
                "response": response,
                "correct": correct,
                "truncated": cut,
            }
        )
        for number, (row, response, correct, cut) in enumerate(items)
    ]
    summary = {
        "task": result.task,
        "score": result.score,
        "interval_95": result.interval,
        "n": result.n,
        "seconds": result.seconds,
        **result.provenance,
    }
    write_text(path, "\n".join(lines) + "\n")
    write_text(path.with_suffix(".summary.json"), json.dumps(summary, indent=2) + "\n")

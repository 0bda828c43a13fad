"""From what the user named to what is measured: rows, metric, prompts, limits. Nothing heavy is opened here."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from skd.config import FileSource
from skd.data.file_tasks import FILE_TASKS, FileTask
from skd.data.own_tasks import find_task
from skd.data.rows import Row, Split
from skd.data.sources import load_rows
from skd.data.tasks import TASKS
from skd.errors import ConfigError, DataError, Problem
from skd.evaluate.answers import last_number, stated_answer
from skd.evaluate.grader import Grader
from skd.evaluate.metrics import Exact, MathMatch, Metric, NumberMatch, metric_of

__all__ = ["Choice", "Workload", "require_known", "workload"]

logger = logging.getLogger(__name__)

BUILT_IN_SIZE, BUILT_IN_NEW_TOKENS = 1000, 64


@dataclass(frozen=True)
class Choice:
    """What to measure, as the user says it."""

    task: str
    data: str | None = None
    """File of the rows; None for tasks that the package generates."""
    split: Split = "test"
    size: int | None = None
    seed: int = 0
    """Draws the rows of a generated task."""
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Workload:
    """Rows to answer and how the answers are judged."""

    name: str
    rows: Sequence[Row]
    metric: Metric
    max_new_tokens: int
    max_prompt_tokens: int | None = None
    """None: whatever fits the model's context."""
    stop_strings: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    task: FileTask | None = None

    def cut(self, response: str) -> str:
        """The response up to the first stop string in it."""
        ends = [response.find(stop) for stop in self.stop_strings]
        return response[: min((end for end in ends if end >= 0), default=len(response))]


def require_known(choices: Sequence[Choice]) -> None:
    """Refuse names and combinations that mean nothing, before anything is read. Raises ConfigError."""
    if problems := [problem for choice in choices for problem in _problems(choice)]:
        raise ConfigError(problems)


def workload(choice: Choice, grader: Grader) -> Workload:
    """What a choice means. Raises ConfigError for unknown names, DataError for data that cannot be used."""
    require_known([choice])
    return _generated(choice) if choice.task in TASKS else _from_file(choice, find_task(choice.task), grader)


def _problems(choice: Choice) -> list[Problem]:
    known = [*TASKS, *FILE_TASKS]
    problems = [
        Problem("SKD-E19", place, f"{value!r} is none of {', '.join(names)}", f"write {_nearest(value, names)}")
        for place, value, names in (("task", choice.task, known), ("split", choice.split, list(get_args(Split))))
        if value not in names and not (place == "task" and _is_file_task(value))
    ]
    if problems:
        return problems
    if choice.task in TASKS and choice.data is not None:
        found = f"{choice.task} generates its rows, and the file {choice.data} is given"
        return [Problem("SKD-C10", "data", found, "leave the file out, or name a task for it")]
    if choice.task not in TASKS and choice.data is None:
        remedy = "name the file of its rows: --data FILE (from Python: data=FILE)"
        return [Problem("SKD-E19", f"task {choice.task}", "reads its rows from a file, and none is given", remedy)]
    return []


def _generated(choice: Choice) -> Workload:
    size = BUILT_IN_SIZE if choice.size is None else choice.size
    rows = TASKS[choice.task].rows(choice.split, size, choice.seed)
    data = {"task": choice.task, "split": choice.split, "size": size, "seed": choice.seed}
    return Workload(
        name=choice.task,
        rows=rows,
        metric=Exact(TASKS[choice.task].score),
        max_new_tokens=choice.max_new_tokens or BUILT_IN_NEW_TOKENS,
        data={**data, "fingerprint": _fingerprint(rows)},
    )


def _is_file_task(name: str) -> bool:
    return name.startswith("translation:") or name.endswith((".yaml", ".yml", ".py"))


def _nearest(value: str, known: Sequence[str]) -> str:
    return (difflib.get_close_matches(value, known, n=1, cutoff=0.0) or [known[0]])[0]


def _from_file(choice: Choice, task: FileTask, grader: Grader) -> Workload:
    assert choice.data is not None
    metric = metric_of(task, grader)
    if not choice.data or not choice.data.isprintable():
        found = f"{choice.data!r} is no path: it is empty or holds control characters"
        raise ConfigError(Problem("SKD-C12", "--data", found, "name the file of the rows"))
    rows = load_rows([FileSource(path=choice.data, task=choice.task, limit=choice.size)])
    _require_answers(rows, metric, choice.data)
    _warn_of_leaks(rows, choice.data)
    data = {
        "task": choice.task,
        "path": choice.data,
        "sha256": hashlib.sha256(Path(choice.data).read_bytes()).hexdigest(),
        "size": len(rows),
        "fingerprint": _fingerprint(rows),
    }
    return Workload(
        name=task.name,
        rows=rows,
        metric=metric,
        max_new_tokens=choice.max_new_tokens or task.max_new_tokens,
        max_prompt_tokens=task.max_prompt_tokens,
        stop_strings=task.stop_strings,
        data=data,
        task=task,
    )


def _require_answers(rows: Sequence[Row], metric: Metric, path: str) -> None:
    """A reference that states no answer would make every response wrong."""
    if not isinstance(metric, NumberMatch | MathMatch):
        return
    wanted = "number" if isinstance(metric, NumberMatch) else "answer"
    stated = [stated_answer(row.response or "") or "" for row in rows]
    bad = [
        number for number, text in enumerate(stated) if not (last_number(text) if wanted == "number" else text.strip())
    ]
    if bad:
        found = f"{len(bad)} of {len(rows)} references state no {wanted}, first in row {bad[0]}"
        words = "" if wanted == "answer" else ", or use --task math, which compares words, too"
        raise DataError(Problem("SKD-E10", path, found, f"correct these references or remove the rows{words}"))


def _warn_of_leaks(rows: Sequence[Row], path: str) -> None:
    leaks = [
        number
        for number, row in enumerate(rows)
        if row.response and len(row.response) > 20 and row.response in row.prompt
    ]
    if leaks:
        logger.warning("%s: %d prompts hold their own reference, first row %d (SKD-E17)", path, len(leaks), leaks[0])


def _fingerprint(rows: Sequence[Row]) -> str:
    """SHA-256 of prompts and references in order: equal fingerprints mean equal items."""
    lines = (json.dumps([row.prompt, row.response]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

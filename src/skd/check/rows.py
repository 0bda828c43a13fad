"""The rows: whether they can be read, and what repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skd.check.report import Part
from skd.config import DataConfig, DataSource, RoutedTeacher, TeacherConfig
from skd.data.rows import Row
from skd.data.sources import digests, leak, load_rows
from skd.errors import DataError, Problem

__all__ = ["check_rows"]

if TYPE_CHECKING:
    from skd.responses import StoredResponses

    Set = Sequence[Row] | StoredResponses


def check_rows(
    part: Part,
    data: DataConfig,
    batch_size: int,
    *,
    fail_on_leak: bool = False,
    teacher: TeacherConfig | None = None,
) -> tuple[Set | None, Set | None]:
    """Read both sets. Everything that ``load_rows`` raises is noted, fewer rows than a batch included (SKD-D12).

    With a ``teacher`` that is several, the rows of each are counted; one without rows is a warning.

    Equal rows are counted (SKD-D06 needs no more: rows are keyed by number). A validation row that is also a training
    row is a warning, or an error with ``fail_on_leak`` or ``data.on_leak: error`` (SKD-D07).
    """
    several = teacher if isinstance(teacher, RoutedTeacher) else None
    train = _loaded(part, "training", data, data.train, batch_size, several)
    validation = None
    if data.validation is not None:
        validation = _loaded(part, "validation", data, data.validation, 1, several)
    if several is not None and isinstance(train, Sequence):
        _check_used(part, several, train)
    texts = [group for group in (train, validation) if isinstance(group, Sequence)]
    problem = leak(*texts) if len(texts) == 2 else None
    if problem is not None:
        if fail_on_leak or data.on_leak == "error":
            part.errors.append(DataError(problem))
        else:
            part.warnings.append(problem)
    return train, validation


def _check_used(part: Part, teacher: RoutedTeacher, train: Sequence[Row]) -> None:
    counts = Counter(row.route for row in train)
    part.facts.append("rows by teacher: " + ", ".join(f"{name} {counts[name]:,}" for name in teacher.by))
    for name in teacher.by:
        if not counts[name]:
            found = f"no training row has {name!r} in its field {teacher.route!r}: this teacher is opened for nothing"
            part.warnings.append(Problem("SKD-C10", f"teacher.by.{name}", found, "remove it, or add such rows"))


def _loaded(
    part: Part,
    name: str,
    data: DataConfig,
    sources: Sequence[DataSource],
    at_least: int,
    teacher: RoutedTeacher | None,
) -> Set | None:
    with part.noting():
        if sources[0].kind == "responses":
            return _stored(part, name, sources[0].path, at_least)
        texts = [source for source in sources if source.kind != "responses"]
        rows = load_rows(texts, on_bad_row=data.on_bad_row, on_empty=data.on_empty, at_least=at_least, teacher=teacher)
        part.facts.append(f"{len(rows):,} {name} rows{_repeated(rows)}")
        return rows
    return None


def _stored(part: Part, name: str, path: str, at_least: int) -> StoredResponses:
    from skd.responses import open_responses

    stored = open_responses(path)
    part.facts.append(f"{len(stored.prompts):,} stored {name} responses")
    if len(stored.prompts) < at_least:
        found = f"{len(stored.prompts)} prompts, but at least {at_least} are needed for one batch"
        raise DataError(Problem("SKD-D12", path, found, "generate more, or lower the batch size"))
    return stored


def _repeated(rows: Sequence[Row]) -> str:
    again = len(rows) - len(np.unique(digests(rows)))
    prompts = len(rows) - len(np.unique(digests(rows, whole=False)))
    if not prompts:
        return ""
    return f" ({again:,} equal an earlier row, {prompts - again:,} repeat its prompt with another response)"

"""Rows from files, from data sets of the Hub and from built-in tasks.

All problems of all sources are reported at once. Rows keep their place and are never looked up by text: equal prompts
with different responses stay different rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Literal

from skd.data.files import file_records
from skd.data.hub import hub_records, name_of
from skd.data.records import Record, RowProblems, kind_of
from skd.data.rows import Row
from skd.data.shapes import Fields, Messages, TaskRows, shape_of
from skd.data.tasks import TASKS
from skd.errors import DataError, Problem

if TYPE_CHECKING:
    from skd.config import FileSource, HubSource, TaskSource

    Source = FileSource | HubSource | TaskSource

__all__ = ["OnBadRow", "OnLeak", "leak", "load_rows", "load_sets", "tell_leak"]

logger = logging.getLogger(__name__)

OnBadRow = Literal["error", "skip"]
OnLeak = Literal["warn", "error"]


def load_rows(sources: Sequence[Source], *, on_bad_row: OnBadRow = "error", at_least: int = 1) -> list[Row]:
    """The rows of all sources, one source after the other and each in its own order.

    Of each source, the first ``share`` of its rows is used, as in the alignment-handbook's ``dataset_mixer``.
    ``on_bad_row="skip"`` leaves out the rows that cannot be read, and lists them as a warning. ``at_least`` is the
    smallest number of rows that is of use, such as one global batch.

    Raises DataError with every problem of every source: missing or empty (SKD-D01), not parsable (SKD-D02), not clean
    text (SKD-D03), wrong fields (SKD-D04), empty texts (SKD-D05), too few rows (SKD-D12), a data set with a script
    (SKD-D15). Raises RemoteError when the Hub does not give a data set (SKD-D16).
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            rows += _shared(source, _source_rows(source, on_bad_row))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    if len(rows) < at_least:
        place = ", ".join(_place(source) for source in sources)
        found = f"{len(rows)} rows, but at least {at_least} are needed for one batch"
        raise DataError(Problem("SKD-D12", place, found, "add rows or lower the batch size"))
    return rows


def load_sets(*sets: Sequence[Source], on_bad_row: OnBadRow = "error") -> list[list[Row]]:
    """``load_rows`` of each set, with the problems of all in one DataError; a set without sources has no rows."""
    loaded: list[list[Row]] = []
    problems: list[Problem] = []
    for sources in sets:
        try:
            loaded.append(load_rows(sources, on_bad_row=on_bad_row) if sources else [])
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(list(dict.fromkeys(problems)))
    return loaded


def tell_leak(train: Sequence[Row], validation: Sequence[Row], on_leak: OnLeak) -> None:
    """Tell of validation rows that are training rows too. Raises DataError instead when ``on_leak`` is "error"."""
    problem = leak(train, validation)
    if problem is None:
        return
    if on_leak == "error":
        raise DataError(problem)
    logger.warning("%s: %s", problem.place, problem.found)


def leak(train: Sequence[Row], validation: Sequence[Row]) -> Problem | None:
    """Validation rows that are training rows too, response included (SKD-D07); None where there are none."""
    trained = {row: i for i, row in reversed([*enumerate(train)])}
    leaked = [i for i, row in enumerate(validation) if row in trained]
    if not leaked:
        return None
    first = leaked[0]
    found = (
        f"{len(leaked)} of {len(validation)} rows are training rows too, first row {first}, which is training row "
        f"{trained[validation[first]]}"
    )
    return Problem("SKD-D07", "data.validation", found, "take them out of one of the two")


def _place(source: Source) -> str:
    if source.kind == "task":
        return source.name
    return source.path if source.kind == "file" else name_of(source)


def _source_rows(source: Source, on_bad_row: OnBadRow) -> list[Row]:
    if source.kind == "task":
        return TASKS[source.name].rows(source.split, source.size, source.seed)
    problems = RowProblems(_place(source))
    records = file_records(source, problems) if source.kind == "file" else hub_records(source)
    rows = _rows(islice(records, source.limit), source, problems)
    if problems.num_rows and (on_bad_row == "error" or not rows):
        raise DataError(problems.shown())
    if problems.num_rows:
        listed = "\n".join(str(problem) for problem in problems.shown())
        logger.warning("%s: left out as data.on_bad_row says skip: %d\n%s", _place(source), problems.num_rows, listed)
    if not rows:
        raise DataError(
            Problem("SKD-D01", _place(source), "the file holds no rows", "give a file with at least one row")
        )
    return rows


def _rows(records: Iterable[Record], source: FileSource | HubSource, problems: RowProblems) -> list[Row]:
    rows: list[Row] = []
    shape: Fields | Messages | TaskRows | None = None
    for place, record in records:
        if not isinstance(record, dict):
            problem = Problem(
                "SKD-D04", place, f"{kind_of(record)} where a row is expected", "make every row an object"
            )
            problems.add(problem)
            continue
        # All rows of a source have the shape of the first, so that a stray row is told and not read another way.
        shape = shape or shape_of(source, record)
        row = shape.row(place, record, problems)
        if row is not None:
            rows.append(row)
    return rows


def _shared(source: Source, rows: list[Row]) -> list[Row]:
    # Exact: 0.29 of 100 rows are 29, and 28 in floating point.
    used = int(Fraction(str(source.share)) * len(rows))
    if used == 0:
        found = f"share {source.share} of {len(rows)} rows is not one row"
        raise DataError(Problem("SKD-D12", _place(source), found, "raise share or add rows"))
    return rows[:used]

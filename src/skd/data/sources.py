"""Rows from files, from data sets of the Hub and from built-in tasks.

All problems of all sources are reported at once. Rows keep their place and are never looked up by text: equal prompts
with different responses stay different rows.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from skd.data.files import file_records
from skd.data.hub import hub_records, name_of
from skd.data.records import OnEmpty, Record, RowProblems, kind_of
from skd.data.rows import Row
from skd.data.shapes import Fields, Messages, TaskRows, routed, shape_of
from skd.data.spool import Rows
from skd.data.tasks import TASKS
from skd.errors import DataError, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skd.config import FileSource, HubSource, RoutedTeacher, TaskSource

    Source = FileSource | HubSource | TaskSource

__all__ = ["OnBadRow", "OnLeak", "digests", "leak", "load_rows", "load_sets", "tell_leak"]

logger = logging.getLogger(__name__)

MAX_ROWS = 100_000_000
"""Of all sources of a set; a row takes eight bytes of memory and the rest of it space on disk."""

OnBadRow = Literal["error", "skip"]
OnLeak = Literal["warn", "error"]


def load_rows(
    sources: Sequence[Source],
    *,
    on_bad_row: OnBadRow = "error",
    on_empty: OnEmpty = "error",
    at_least: int = 1,
    teacher: RoutedTeacher | None = None,
) -> Sequence[Row]:
    """The rows of all sources, one source after the other and each in its own order.

    Of each source, the first ``share`` of its rows is used, as in the alignment-handbook's ``dataset_mixer``.
    ``on_bad_row="skip"`` leaves out the rows that cannot be read, and lists them as a warning.
    ``on_empty="keep"`` takes empty prompts and responses as they are. ``at_least`` is the smallest number of rows that
    is of use, such as one global batch. With a ``teacher`` that is several, each row names the one it has.

    Raises DataError with every problem of every source: missing or empty (SKD-D01), not parsable (SKD-D02), not clean
    text (SKD-D03), wrong fields (SKD-D04), empty texts (SKD-D05), too few rows (SKD-D12), a data set with a script
    (SKD-D15). Raises RemoteError when the Hub does not give a data set (SKD-D16).
    """
    rows, problems = Rows(), list[Problem]()
    for source in sources:
        try:
            before = len(rows)
            _add_rows(rows, source, on_bad_row, on_empty, teacher)
            rows.cut(before + _share(source, len(rows) - before))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    if len(rows) < at_least:
        place = ", ".join(_place(source) for source in sources)
        found = f"{len(rows)} rows, but at least {at_least} are needed for one batch"
        raise DataError(Problem("SKD-D12", place, found, "add rows or lower the batch size"))
    return rows


def load_sets(
    *sets: Sequence[Source],
    on_bad_row: OnBadRow = "error",
    on_empty: OnEmpty = "error",
    teacher: RoutedTeacher | None = None,
) -> list[Sequence[Row]]:
    """``load_rows`` of each set, with the problems of all in one DataError; a set without sources has no rows."""
    loaded: list[Sequence[Row]] = []
    problems: list[Problem] = []
    for sources in sets:
        try:
            loaded.append(
                load_rows(sources, on_bad_row=on_bad_row, on_empty=on_empty, teacher=teacher) if sources else []
            )
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
    trained = digests(train)
    order = np.argsort(trained, kind="stable")
    places = np.searchsorted(trained, digests(validation), sorter=order)
    pairs = [(i, int(order[place])) for i, place in enumerate(places) if place < len(order)]
    leaked = [(i, other) for i, other in pairs if validation[i] == train[other]]
    if not leaked:
        return None
    first, other = leaked[0]
    found = (
        f"{len(leaked)} of {len(validation)} rows are training rows too, first row {first}, which is training row "
        f"{other}"
    )
    return Problem("SKD-D07", "data.validation", found, "take them out of one of the two")


def digests(rows: Sequence[Row], *, whole: bool = True) -> NDArray[np.uint64]:
    """64 bits of each row, or of its prompt with what stands before it: eight bytes in the place of a text."""

    def digest(row: Row) -> int:
        text = repr(row if whole else (row.context, row.prompt)).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

    return np.fromiter(map(digest, rows), dtype=np.uint64, count=len(rows))


def _place(source: Source) -> str:
    if source.kind == "task":
        return source.name
    return source.path if source.kind == "file" else name_of(source)


def _add_rows(
    rows: Rows, source: Source, on_bad_row: OnBadRow, on_empty: OnEmpty, teacher: RoutedTeacher | None
) -> None:
    """Put the rows of a source behind those that are there."""
    if source.kind == "task":
        rows.extend(TASKS[source.name].rows(source.split, source.size, source.seed))
        return
    problems, before = RowProblems(_place(source), on_empty), len(rows)
    records = file_records(source, problems) if source.kind == "file" else hub_records(source)
    for row in _rows(islice(records, source.limit), source, problems, teacher):
        rows.append(row)
        if len(rows) > MAX_ROWS:
            found, remedy = f"more than {MAX_ROWS:,} rows", "set limit or share, or train from several files in turn"
            raise DataError(Problem("SKD-D17", _place(source), found, remedy))
    none = len(rows) == before
    if problems.num_rows and (on_bad_row == "error" or none):
        raise DataError(problems.shown())
    if problems.num_rows:
        listed = "\n".join(str(problem) for problem in problems.shown())
        logger.warning("%s: left out as data.on_bad_row says skip: %d\n%s", _place(source), problems.num_rows, listed)
    if none:
        raise DataError(
            Problem("SKD-D01", _place(source), "the file holds no rows", "give a file with at least one row")
        )


def _rows(
    records: Iterable[Record], source: FileSource | HubSource, problems: RowProblems, teacher: RoutedTeacher | None
) -> Iterator[Row]:
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
        if row is not None and teacher is not None:
            row = routed(row, place, record, teacher, problems)
        if row is not None:
            yield row


def _share(source: Source, num_rows: int) -> int:
    """How many of a source's rows are used."""
    # Exact: 0.29 of 100 rows are 29, and 28 in floating point.
    used = int(Fraction(str(source.share)) * num_rows)
    if used == 0:
        found = f"share {source.share} of {num_rows} rows is not one row"
        raise DataError(Problem("SKD-D12", _place(source), found, "raise share or add rows"))
    return used

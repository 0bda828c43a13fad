"""Rows from files and built-in tasks.

JSON and JSON Lines are read with the standard library, so that a broken place has a line and a column; CSV and Parquet
with ``datasets``. All problems of a file are reported at once. Rows keep their place and are never looked up by text:
equal prompts with different responses stay different rows.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skd.data.file_tasks import FileTask
from skd.data.own_tasks import find_task
from skd.data.rows import Row
from skd.data.tasks import TASKS
from skd.errors import DataError, Problem

if TYPE_CHECKING:
    from skd.config.schema import FileSource, TaskSource

__all__ = ["load_rows"]

RELEASED_FIELD = "instances"
"""Key under which the data files of the paper hold their rows; found without being named."""
SHOWN = 5
"""Problems of one kind that are listed; the others are counted."""

Record = tuple[str, Any]
"""Where a row stands, and the value that stands there."""


def load_rows(source: FileSource | TaskSource, *, at_least: int = 1) -> list[Row]:
    """The rows of a source, in the order of the source.

    ``at_least`` is the smallest number of rows that is of use, such as one global batch. Raises DataError with every
    problem of the file: missing or empty (SKD-D01), not parsable (SKD-D02), not clean text (SKD-D03), wrong fields
    (SKD-D04), empty texts (SKD-D05), too few rows (SKD-D12).
    """
    if source.kind == "task":
        rows = TASKS[source.name].rows(source.split, source.size, source.seed)
    else:
        rows = _file_rows(source)
    if len(rows) < at_least:
        place = source.name if source.kind == "task" else source.path
        found = f"{len(rows)} rows, but at least {at_least} are needed for one batch"
        raise DataError(Problem("SKD-D12", place, found, "add rows or lower the batch size"))
    return rows


class _Problems:
    """Problems by kind: the first few are kept in full, the rest as a count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kinds: dict[tuple[str, str], list[Problem]] = {}

    def add(self, problem: Problem) -> None:
        self._kinds.setdefault((problem.code, problem.remedy), []).append(problem)

    def raise_any(self) -> None:
        shown: list[Problem] = []
        for (code, remedy), problems in self._kinds.items():
            shown += problems[:SHOWN]
            if len(problems) > SHOWN:
                found = f"{len(problems) - SHOWN} more rows like these, {len(problems)} in all"
                shown.append(Problem(code, str(self._path), found, remedy))
        if shown:
            raise DataError(shown)


def _file_rows(source: FileSource) -> list[Row]:
    path, problems = Path(source.path), _Problems(Path(source.path))
    task = None if source.task is None else find_task(source.task)
    rows: list[Row] = []
    num_records = 0
    for place, value in islice(_records(path, source, task, problems), source.limit):
        num_records += 1
        row = _row(place, value, source, task, problems)
        if row is not None:
            rows.append(row)
    problems.raise_any()
    if not num_records:
        raise DataError(Problem("SKD-D01", str(path), "the file holds no rows", "give a file with at least one row"))
    return rows


def _records(path: Path, source: FileSource, task: FileTask | None, problems: _Problems) -> Iterable[Record]:
    """The records of a file by its suffix; lazily, so that a limit stops the reading."""
    if not path.is_file():
        found = "this is a directory, a file is expected" if path.is_dir() else "no such file"
        raise DataError(Problem("SKD-D01", str(path), found, "correct the path; it starts where skd is started"))
    if not os.access(path, os.R_OK):
        raise DataError(Problem("SKD-D01", str(path), "no permission to read it", "change the permissions of the file"))
    if path.stat().st_size == 0:
        raise DataError(Problem("SKD-D01", str(path), "the file is empty", "give a file with at least one row"))
    suffix, field = path.suffix.lower(), source.field
    if field is not None and suffix != ".json":
        found = f"field is {field!r}, but only a .json file can hold its rows under a key"
        raise DataError(Problem("SKD-D04", str(path), found, "leave field out"))
    if suffix == ".json":
        return _json_records(path, field)
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines_records(path, problems)
    if suffix == ".csv":
        return _csv_records(path, source, task)
    if suffix == ".parquet":
        return _table_records(path, "parquet", {})
    found = f"the suffix {suffix!r} names no known format"
    raise DataError(Problem("SKD-D01", str(path), found, "use .json, .jsonl, .csv or .parquet"))


def _json_lines_records(path: Path, problems: _Problems) -> Iterator[Record]:
    # Lines end at \n only: str.splitlines would also cut at characters such as U+2028, which are legal inside JSON.
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = _decode(line, path, number, offset).rstrip()
                if text:
                    yield f"{path}:{number}", _parse(text, path, "write one JSON object per line", number)
            except DataError as error:
                problems.add(error.problems[0])
            offset += len(line)


def _json_records(path: Path, field: str | None) -> Iterator[Record]:
    remedy = "correct it; a file with one object per line is named .jsonl"
    value, prefix = _parse(_decode(path.read_bytes(), path), path, remedy), str(path)
    if isinstance(value, dict):
        value, prefix = _under(value, field, path), f"{path}:{field}"
    elif field is not None:
        found = f"field is {field!r}, but the file holds {_kind(value)} and no object with keys"
        raise DataError(Problem("SKD-D04", str(path), found, "leave field out"))
    if not isinstance(value, list):
        found = f"{_kind(value)} where a list of rows is expected"
        raise DataError(Problem("SKD-D04", prefix, found, "give a list of objects"))
    for i, item in enumerate(value):
        yield f"{prefix}[{i}]", item


def _under(value: dict[str, Any], field: str | None, path: Path) -> Any:
    if field in value:
        return value[field]
    if field is None and isinstance(value.get(RELEASED_FIELD), list):
        return value[RELEASED_FIELD]
    found = f"no key {field!r}" if field is not None else "the file holds one object, not a list of rows"
    remedy = f"set field to the key that holds the rows, one of: {_names(value)}"
    raise DataError(Problem("SKD-D04", str(path), found, remedy))


def _csv_records(path: Path, source: FileSource, task: FileTask | None) -> Iterator[Record]:
    _decode(path.read_bytes(), path)
    # Fields are text: guessing types would turn the response "42" into a number and "NA" into nothing.
    names = {name for name in (source.prompt_field, source.response_field) if name is not None}
    if task is not None:
        names = {name for shape in task.shapes for name in shape.fields}
    return _table_records(
        path, "csv", {"converters": dict.fromkeys(names, str), "keep_default_na": False, "encoding": "utf-8-sig"}
    )


def _table_records(path: Path, kind: str, options: dict[str, Any]) -> Iterator[Record]:
    import datasets  # type: ignore[import-untyped]  # heavy, and needed for tables only

    try:
        # Streamed, so that no copy of the data is left in a cache.
        rows = datasets.load_dataset(
            kind,
            data_files=glob.escape(str(path)),
            split="train",
            streaming=True,
            trust_remote_code=False,
            **options,
        )
        for number, row in enumerate(rows, start=1):
            yield f"{path}:row {number}", row
    except (ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()
        found = f"not readable as {kind}: {cause[0] if cause else type(error).__name__}"
        raise DataError(Problem("SKD-D02", str(path), found, "write the file again")) from None


def _decode(data: bytes, path: Path, line: int = 1, offset: int = 0) -> str:
    """UTF-8 text without a byte order mark; ``line`` and ``offset`` say where in the file ``data`` begins."""
    try:
        return data.decode().removeprefix("\ufeff" if offset == 0 else "")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        found = f"byte {data[error.start]:#04x} at offset {offset + error.start} is not UTF-8"
        raise DataError(Problem("SKD-D03", f"{path}:{line}", found, "save the file as UTF-8")) from None


def _parse(text: str, path: Path, remedy: str, line: int = 1) -> Any:
    """JSON of ``text``, which begins at ``line`` of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{line + error.lineno - 1}:{error.colno}"
        raise DataError(Problem("SKD-D02", place, f"not JSON: {error.msg}", remedy)) from None
    except RecursionError:
        raise DataError(Problem("SKD-D02", f"{path}:{line}", "JSON nested too deeply", remedy)) from None
    except ValueError:
        # The limit of Python's conversion of digits, which grows with their square.
        raise DataError(Problem("SKD-D02", f"{path}:{line}", "a number of thousands of digits", remedy)) from None


def _row(place: str, value: Any, source: FileSource, task: FileTask | None, problems: _Problems) -> Row | None:
    if not isinstance(value, dict):
        problems.add(Problem("SKD-D04", place, f"{_kind(value)} where a row is expected", "make every row an object"))
        return None
    if task is not None:
        return _task_row(place, value, task, problems)
    prompt = _field(place, value, "prompt_field", source.prompt_field, problems)
    if source.response_field is None:
        return None if prompt is None else Row(prompt, None)
    response = _field(place, value, "response_field", source.response_field, problems)
    return None if prompt is None or response is None else Row(prompt, response)


def _task_row(place: str, value: dict[str, Any], task: FileTask, problems: _Problems) -> Row | None:
    shape = task.shape(value)
    if shape is None:
        forms = ", or ".join(" + ".join(shape.fields) for shape in task.shapes)
        found = f"the row has {_names(value)}; the task {task.name} reads {forms}"
        problems.add(Problem("SKD-D04", place, found, "rename the fields, or write a task file of your own"))
        return None
    row = {name: _number_as_text(value[name]) for name in shape.fields}
    texts = {name: _field(place, row, "task", name, problems) for name in shape.fields}
    known = {name: text for name, text in texts.items() if text is not None}
    return Row(shape.prompt.fill(known), shape.reference.fill(known)) if len(known) == len(texts) else None


def _number_as_text(value: Any) -> Any:
    """Some data sets hold their answers as numbers, and whole ones as 145.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _field(place: str, row: dict[str, Any], option: str, name: str, problems: _Problems) -> str | None:
    """The text of a field, or None after its problem was noted."""
    way_out = ", or to null if the data has no responses" if option == "response_field" else ""
    if name not in row:
        remedy = f"set {option} to the right name{way_out}"
        problems.add(Problem("SKD-D04", place, f"no field {name!r}; the row has {_names(row)}", remedy))
        return None
    text = row[name]
    if not isinstance(text, str):
        problems.add(
            Problem("SKD-D04", place, f"field {name!r} is {_kind(text)}, not text", f"make every {name!r} text")
        )
        return None
    if not text.strip():
        problems.add(Problem("SKD-D05", place, f"field {name!r} is empty", f"fill or remove the rows without {name!r}"))
        return None
    bad = next((i for i, character in enumerate(text) if character == "\0" or "\ud800" <= character <= "\udfff"), None)
    if bad is not None:
        found = f"field {name!r} holds U+{ord(text[bad]):04X} at character {bad}, which is no text"
        problems.add(Problem("SKD-D03", place, found, "remove NUL characters and lone surrogates"))
        return None
    return text


def _names(row: dict[str, Any]) -> str:
    names = [repr(name) for name in row]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "no fields") + more


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "an object" if isinstance(value, dict) else f"a {type(value).__name__}")

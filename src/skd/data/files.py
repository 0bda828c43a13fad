"""The records of JSON, JSON Lines, CSV and Parquet files.

JSON and JSON Lines are read with the standard library, so that a broken place has a line and a column; CSV and Parquet
with ``datasets``.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from skd.data.records import Record, RowProblems, kind_of, names_of
from skd.data.shapes import text_fields
from skd.errors import DataError, Problem

if TYPE_CHECKING:
    from skd.config import FileSource

__all__ = ["file_records"]

MAX_ROW_BYTES = 1 << 24
"""Of one line; a row of 1 MB is nothing strange."""
MAX_JSON_BYTES = 1 << 28
"""Of a file that is read as a whole."""
RELEASED = "instances"
"""The key that holds the rows in the files of the paper's code."""


def file_records(source: FileSource, problems: RowProblems) -> Iterable[Record]:
    """The records of a file by its suffix; lazily, so that a limit stops the reading.

    Lines that cannot be read are added to ``problems``. Raises DataError for a file that cannot be read at all.
    """
    path = Path(source.path)
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
        return _csv_records(path, source)
    if suffix == ".parquet":
        return _table_records(path, "parquet", {})
    found = f"the suffix {suffix!r} names no known format"
    raise DataError(Problem("SKD-D01", str(path), found, "use .json, .jsonl, .csv or .parquet"))


def _json_lines_records(path: Path, problems: RowProblems) -> Iterator[Record]:
    # Lines end at \n only: str.splitlines would also cut at characters such as U+2028, which are legal inside JSON.
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), start=1):
            try:
                if len(line) > MAX_ROW_BYTES:
                    raise _too_long(f"{path}:{number}")
                text = _decode(line, path, number, offset).rstrip()
                if text:
                    yield f"{path}:{number}", _parse(text, path, "write one JSON object per line", number)
            except DataError as error:
                problems.add(error.problems[0])
            offset = file.tell()


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is too long only as much as shows that it is."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        rest = line
        while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_ROW_BYTES + 1)
        yield line


def _too_long(place: str) -> DataError:
    found = f"the row has more than {MAX_ROW_BYTES >> 20} MiB"
    return DataError(Problem("SKD-D17", place, found, "shorten or remove it; no model reads so much at once"))


def _json_records(path: Path, field: str | None) -> Iterator[Record]:
    if path.stat().st_size > MAX_JSON_BYTES:
        found = f"has more than {MAX_JSON_BYTES >> 20} MiB, and a .json file is read as a whole"
        raise DataError(Problem("SKD-D17", str(path), found, "write one object per line into a .jsonl file"))
    remedy = "correct it; a file with one object per line is named .jsonl"
    value, prefix = _parse(_decode(path.read_bytes(), path), path, remedy), str(path)
    if isinstance(value, dict):
        if field is None and [key for key, inner in value.items() if isinstance(inner, list)] == [RELEASED]:
            field = RELEASED
        value, prefix = _under(value, field, path), f"{path}:{field}"
    elif field is not None:
        found = f"field is {field!r}, but the file holds {kind_of(value)} and no object with keys"
        raise DataError(Problem("SKD-D04", str(path), found, "leave field out"))
    if not isinstance(value, list):
        found = f"{kind_of(value)} where a list of rows is expected"
        raise DataError(Problem("SKD-D04", prefix, found, "give a list of objects"))
    for i, item in enumerate(value):
        yield f"{prefix}[{i}]", item


def _under(value: dict[str, Any], field: str | None, path: Path) -> Any:
    if field in value:
        return value[field]
    found = f"no key {field!r}" if field is not None else "the file holds one object, not a list of rows"
    remedy = f"set field to the key that holds the rows, one of: {names_of(value)}"
    raise DataError(Problem("SKD-D04", str(path), found, remedy))


def _csv_records(path: Path, source: FileSource) -> Iterator[Record]:
    _require_utf8(path)
    # Fields are text: guessing types would turn the response "42" into a number and "NA" into nothing.
    texts = dict.fromkeys(text_fields(source), str)
    return _table_records(path, "csv", {"converters": texts, "keep_default_na": False, "encoding": "utf-8-sig"})


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


def _require_utf8(path: Path) -> None:
    """Raises DataError (SKD-D03) at the first byte that is no UTF-8; the file is not held in memory."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), start=1):
            if len(line) > MAX_ROW_BYTES:
                raise _too_long(f"{path}:{number}")
            _decode(line, path, number, offset)
            offset = file.tell()


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

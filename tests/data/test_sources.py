from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skd.data.number_words import rows as number_rows
from skd.data.rows import Row
from skd.data.sources import load_rows
from skd.errors import DataError


@dataclass(frozen=True)
class File:
    path: str
    prompt_field: str = "prompt"
    response_field: str | None = "response"
    field: str | None = None
    task: str | None = None
    limit: int | None = None
    kind: str = "file"


@dataclass(frozen=True)
class TaskRows:
    name: str
    split: str
    size: int
    seed: int = 0
    kind: str = "task"


def load(path: Path, **options: Any) -> list[Row]:
    at_least = options.pop("at_least", 1)
    return load_rows(File(str(path), **options), at_least=at_least)  # type: ignore[arg-type]


def problems_of(path: Path, **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(path, **options)
    assert caught.value.exit_code == 3
    return [str(problem).replace(str(path.parent) + "/", "") for problem in caught.value.problems]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def line(prompt: Any = "p", response: Any = "r") -> str:
    return json.dumps({"prompt": prompt, "response": response})


TWO = [Row("a b", "c"), Row("ä\u2028ö", "d\ne")]
TWO_OBJECTS = [{"prompt": row.prompt, "response": row.response} for row in TWO]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_json_lines_with_mark_crlf_blank_lines_and_line_separator(tmp_path: Path, mark: str, newline: str) -> None:
    texts = [json.dumps(item, ensure_ascii=False) for item in TWO_OBJECTS]
    assert load(write(tmp_path / "d.jsonl", mark + f"{newline}{newline}".join(texts) + newline)) == TWO


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_json_list_and_rows_under_a_key(tmp_path: Path, mark: str) -> None:
    assert load(write(tmp_path / "d.json", mark + json.dumps(TWO_OBJECTS))) == TWO
    assert load(write(tmp_path / "k.json", mark + json.dumps({"instances": TWO_OBJECTS})), field="instances") == TWO


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_keeps_everything_as_text(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path / "d.csv", mark + 'prompt,response\r\n6 x 7,42\r\n"a, ""b""",NA\r\n"two\nlines",null\r\n')
    assert load(path) == [Row("6 x 7", "42"), Row('a, "b"', "NA"), Row("two\nlines", "null")]


def test_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(TWO_OBJECTS).to_parquet(tmp_path / "d[1].parquet")
    assert load(tmp_path / "d[1].parquet") == TWO


def test_other_field_names_no_responses_and_a_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", "\n".join(json.dumps({"q": str(i)}) for i in range(5)))
    assert load(path, prompt_field="q", response_field=None, limit=2) == [Row("0", None), Row("1", None)]


def test_duplicate_prompts_keep_their_own_responses(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", f"{line('p', 'first')}\n{line('p', 'second')}\n")
    assert load(path) == [Row("p", "first"), Row("p", "second")]


def test_tasks_by_name() -> None:
    source: Any = TaskRows("number_words", "test", 5, seed=3)
    assert load_rows(source) == number_rows("test", 5, 3)


def test_missing_empty_and_unknown_files(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "no.jsonl") == [
        "error[SKD-D01] no.jsonl: no such file; correct the path; it starts where skd is started"
    ]
    (tmp_path / "dir.jsonl").mkdir()
    assert "this is a directory, a file is expected" in problems_of(tmp_path / "dir.jsonl")[0]
    assert problems_of(write(tmp_path / "e.jsonl", "")) == [
        "error[SKD-D01] e.jsonl: the file is empty; give a file with at least one row"
    ]
    assert problems_of(write(tmp_path / "b.jsonl", "\n \r\n\n")) == [
        "error[SKD-D01] b.jsonl: the file holds no rows; give a file with at least one row"
    ]
    assert "the file holds no rows" in problems_of(write(tmp_path / "b.json", "[]"))[0]
    assert problems_of(write(tmp_path / "d.txt", "x")) == [
        "error[SKD-D01] d.txt: the suffix '.txt' names no known format; use .json, .jsonl, .csv or .parquet"
    ]


def test_a_broken_line_has_line_and_column_and_all_are_listed(tmp_path: Path) -> None:
    good = line()
    path = write(tmp_path / "data.jsonl", "\n".join([good] * 717 + [good[:-1] + ", x}", good, good[:9]]))
    assert problems_of(path) == [
        "error[SKD-D02] data.jsonl:718:34: not JSON: Expecting property name enclosed in double quotes; "
        "write one JSON object per line",
        "error[SKD-D02] data.jsonl:720:10: not JSON: Expecting ':' delimiter; write one JSON object per line",
    ]


def test_broken_json_file(tmp_path: Path) -> None:
    assert problems_of(write(tmp_path / "d.json", '[\n  {"prompt": "p",\n  ]')) == [
        "error[SKD-D02] d.json:3:3: not JSON: Expecting property name enclosed in double quotes; "
        "correct it; a file with one object per line is named .jsonl"
    ]
    assert "named .jsonl" in problems_of(write(tmp_path / "lines.json", f"{line()}\n{line()}"))[0]
    assert "nested too deeply" in problems_of(write(tmp_path / "deep.json", "[" * 200_000))[0]
    assert "a number of thousands of digits" in problems_of(write(tmp_path / "long.json", "[" + "9" * 6_000 + "]"))[0]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_no_utf8_have_an_offset_in_the_file(tmp_path: Path, mark: bytes) -> None:
    content = mark + line().encode() + b'\n{"prompt": "\xe4", "response": "r"}\n'
    offset = len(mark) + len(line()) + 13
    expected = f"byte 0xe4 at offset {offset} is not UTF-8; save the file as UTF-8"
    assert content[offset] == 0xE4
    for name in ("d.jsonl", "d.json", "d.csv"):
        assert problems_of(write(tmp_path / name, content)) == [f"error[SKD-D03] {name}:2: {expected}"]
    first = mark + b'{"prompt": "\xe4"}'
    expected = f"error[SKD-D03] d.jsonl:1: byte 0xe4 at offset {len(mark) + 12} is not UTF-8; save the file as UTF-8"
    assert problems_of(write(tmp_path / "d.jsonl", first)) == [expected]


def test_nul_and_lone_surrogates_are_no_text(tmp_path: Path) -> None:
    remedy = "remove NUL characters and lone surrogates"
    assert problems_of(write(tmp_path / "d.jsonl", f"{line('a' + chr(0))}\n{line('p', 'ab' + chr(0xD800))}")) == [
        f"error[SKD-D03] d.jsonl:1: field 'prompt' holds U+0000 at character 1, which is no text; {remedy}",
        f"error[SKD-D03] d.jsonl:2: field 'response' holds U+D800 at character 2, which is no text; {remedy}",
    ]


def test_wrong_fields_are_named_with_what_the_row_has(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", '{"instruction": "p", "response": "r"}\n[1]\n{"prompt": 3, "response": null}')
    assert problems_of(path) == [
        "error[SKD-D04] d.jsonl:1: no field 'prompt'; the row has 'instruction', 'response'; "
        "set prompt_field to the right name",
        "error[SKD-D04] d.jsonl:2: a list where a row is expected; make every row an object",
        "error[SKD-D04] d.jsonl:3: field 'prompt' is a number, not text; make every 'prompt' text",
        "error[SKD-D04] d.jsonl:3: field 'response' is null, not text; make every 'response' text",
    ]
    assert problems_of(write(tmp_path / "n.json", '[{"prompt": "p"}]')) == [
        "error[SKD-D04] n.json[0]: no field 'response'; the row has 'prompt'; "
        "set response_field to the right name, or to null if the data has no responses"
    ]


def test_the_first_five_of_a_kind_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", "\n".join([line(" ")] * 12 + [line("p", "")]))
    problems = problems_of(path)
    remedy = "fill or remove the rows without 'prompt'"
    assert problems[0] == f"error[SKD-D05] d.jsonl:1: field 'prompt' is empty; {remedy}"
    assert problems[5] == f"error[SKD-D05] d.jsonl: 7 more rows like these, 12 in all; {remedy}"
    assert problems[6].startswith("error[SKD-D05] d.jsonl:13: field 'response' is empty; ")
    assert len(problems) == 7


def test_a_wrong_or_missing_key_for_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", '{"items": [], "version": 1}')
    assert problems_of(path) == [
        "error[SKD-D04] d.json: the file holds one object, not a list of rows; "
        "set field to the key that holds the rows, one of: 'items', 'version'"
    ]
    assert "no key 'rows'; set field to the key" in problems_of(path, field="rows")[0]
    assert problems_of(path, field="version") == [
        "error[SKD-D04] d.json:version: a number where a list of rows is expected; give a list of objects"
    ]
    assert (
        "a list and no object with keys; leave field out"
        in problems_of(write(tmp_path / "l.json", "[1]"), field="instances")[0]
    )
    assert (
        "only a .json file can hold its rows under a key"
        in problems_of(write(tmp_path / "l.jsonl", line()), field="instances")[0]
    )


def test_broken_tables(tmp_path: Path) -> None:
    assert problems_of(write(tmp_path / "d.parquet", b"PAR1 no parquet PAR1"))[0].startswith(
        "error[SKD-D02] d.parquet: not readable as parquet: "
    )
    assert problems_of(write(tmp_path / "d.csv", 'prompt,response\n"a,b\nc,d\n'))[0].startswith(
        "error[SKD-D02] d.csv: not readable as csv: "
    )
    assert problems_of(write(tmp_path / "f.csv", "question,response\na,b\n")) == [
        "error[SKD-D04] f.csv:row 1: no field 'prompt'; the row has 'question', 'response'; "
        "set prompt_field to the right name"
    ]


def test_fewer_rows_than_one_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", f"{line()}\n{line()}\n")
    assert len(load(path, at_least=2)) == 2
    assert problems_of(path, at_least=3) == [
        "error[SKD-D12] d.jsonl: 2 rows, but at least 3 are needed for one batch; add rows or lower the batch size"
    ]

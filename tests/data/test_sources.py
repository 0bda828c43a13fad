from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from skd.config import FileSource, TaskSource
from skd.data.dialogue import rows as dialogue_rows
from skd.data.number_words import rows as number_rows
from skd.data.rows import Row, Turn
from skd.data.sources import load_rows, load_sets, tell_leak
from skd.errors import DataError


def load(path: Path, *, at_least: int = 1, on_bad_row: Any = "error", **options: Any) -> list[Row]:
    return load_rows([FileSource(path=str(path), **options)], at_least=at_least, on_bad_row=on_bad_row)


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


def write_rows(path: Path, *rows: Any) -> Path:
    return write(path, "\n".join(json.dumps(row) for row in rows))


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
    source = TaskSource(kind="task", name="number_words", split="test", size=5, seed=3)
    assert load_rows([source]) == number_rows("test", 5, 3)


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
    path = write(tmp_path / "d.jsonl", '{"question": "p", "response": "r"}\n[1]\n{"prompt": 3, "response": null}')
    assert problems_of(path) == [
        "error[SKD-D04] d.jsonl:1: no field 'prompt'; the row has 'question', 'response'; "
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
    remedy = "fill or remove the rows without 'prompt', or set data.on_empty to keep"
    assert problems[0] == f"error[SKD-D05] d.jsonl:1: field 'prompt' is empty; {remedy}"
    assert problems[5] == f"error[SKD-D05] d.jsonl: 7 more rows like these, 12 in all; {remedy}"
    assert problems[6].startswith("error[SKD-D05] d.jsonl:13: field 'response' is empty; ")
    assert len(problems) == 7


def test_a_wrong_or_missing_key_for_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", '{"rows": [], "version": 1}')
    assert problems_of(path) == [
        "error[SKD-D04] d.json: the file holds one object, not a list of rows; "
        "set field to the key that holds the rows, one of: 'rows', 'version'"
    ]
    assert "no key 'data'; set field to the key" in problems_of(path, field="data")[0]
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


def test_the_papers_files_load_as_they_are(tmp_path: Path) -> None:
    released = {"type": "text2text", "instances": [{"instruction": "p", "response": "r", "dialogue": "no"}]}
    assert load(write(tmp_path / "gsm_1k_train.json", json.dumps(released))) == [Row("p", "r")]
    released = {"instances": [{"id": 1, "dialogue": "p", "summary": "r"}]}
    assert load(write(tmp_path / "summ_1k_train.json", json.dumps(released))) == [Row("p", "r")]
    assert load(write(tmp_path / "s.csv", "dialogue,summary\n1,NA\n")) == [Row("1", "NA")]
    assert load(write_rows(tmp_path / "t.jsonl", {"dialogue": "p"}), response_field=None) == [Row("p", None)]


def test_instances_beside_another_list_must_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", json.dumps({"instances": [{"prompt": "p", "response": "r"}], "labels": []}))
    assert "set field to the key that holds the rows, one of: 'instances', 'labels'" in problems_of(path)[0]
    assert load(path, field="instances") == [Row("p", "r")]


def test_all_rows_have_the_shape_of_the_first(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d.jsonl", {"instruction": "p", "response": "r"}, {"prompt": "p", "response": "r"})
    assert problems_of(path) == [
        "error[SKD-D04] d.jsonl:2: no field 'instruction'; the row has 'prompt', 'response'; "
        "set prompt_field to the right name"
    ]


def test_fields_that_are_named_are_not_looked_for_elsewhere(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d.jsonl", {"instruction": "p", "response": "r"})
    assert "no field 'question'; the row has 'instruction', 'response'" in problems_of(path, prompt_field="question")[0]
    assert "no field 'answer'; the row has" in problems_of(path, prompt_field="instruction", response_field="answer")[0]


def says(*turns: str) -> dict[str, Any]:
    """says("user: hi", ...) -> a record with messages."""
    return {"messages": [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]}


def test_conversations(tmp_path: Path) -> None:
    records = [
        says("user: hi", "assistant: yo"),
        says("system: be brief", "user: hi", "assistant: yo", "user: more", "assistant: no"),
        says("system: ", "user: hi", "assistant: yo", "user: more"),
    ]
    rows = [
        Row("hi", "yo"),
        Row("more", "no", (Turn("system", "be brief"), Turn("user", "hi"), Turn("assistant", "yo"))),
        Row("more", None, (Turn("system", ""), Turn("user", "hi"), Turn("assistant", "yo"))),
    ]
    assert load(write_rows(tmp_path / "d.jsonl", *records)) == rows
    # As in ultrachat_200k, where a prompt stands beside the messages.
    beside = [{"prompt": "hi", **record} for record in records]
    assert load(write_rows(tmp_path / "u.jsonl", *beside)) == rows
    renamed = [{"prompt": "p", "response": "r", "chat": record["messages"]} for record in records]
    path = write_rows(tmp_path / "r.jsonl", *renamed)
    assert load(path, messages_field="chat") == rows
    assert load(path) == [Row("p", "r")] * 3
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet") == rows


def test_broken_conversations_are_named(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "d.jsonl",
        {"text": "hi"},
        {"messages": "hi"},
        {"messages": []},
        {"messages": [["user", "hi"]]},
        says("tool: hi"),
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": " "}]},
        {"messages": [{"role": "user", "content": "a\0"}]},
        says("system: be brief"),
        says("assistant: hi", "user: yo"),
        says("user: hi", "system: be brief", "user: hi"),
        says("user: hi", "user: hi", "assistant: yo"),
    )
    in_turn = "let user and assistant speak in turn, the user first, after at most one system message"
    a_list = "make every 'messages' a list of {role, content}"
    roles = "use the roles system, user and assistant"
    found = problems_of(path, messages_field="messages")
    assert sorted(found, key=lambda problem: int(problem.split(":")[1])) == [
        f"error[SKD-D0{code}] d.jsonl:{text}"
        for code, text in [
            (4, "1: no field 'messages'; the row has 'text'; set messages_field to the right name"),
            (4, f"2: field 'messages' is text, not a list of messages; {a_list}"),
            (4, f"3: field 'messages' is an empty list; {a_list}"),
            (4, f"4: field 'messages[0]' is a list, not an object with role and content; {a_list}"),
            (4, f"5: field 'messages[0].role' is 'tool'; {roles}"),
            (4, f"6: messages[0] has no role; {roles}"),
            (4, "7: field 'messages[0].content' is null, not text; make every 'messages[].content' text"),
            (
                5,
                "7: field 'messages[1].content' is empty; fill or remove the rows without 'messages[].content', "
                "or set data.on_empty to keep",
            ),
            (
                3,
                "8: field 'messages[0].content' holds U+0000 at character 1, which is no text; "
                "remove NUL characters and lone surrogates",
            ),
            (4, f"9: field 'messages' has the roles system; {in_turn}"),
            (4, f"10: field 'messages' has the roles assistant, user; {in_turn}"),
            (4, f"11: field 'messages' has the roles user, system, user; {in_turn}"),
            (4, f"12: field 'messages' has the roles user, user, assistant; {in_turn}"),
        ]
    ]


def test_bad_rows_can_be_left_out_and_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = ["{", '{"prompt": "\xe4"}', "[1]", line(" "), line("p", 3), '{"prompt": 1}']
    path = write(tmp_path / "d.jsonl", "\n".join([line("a"), *bad, line("b")]).encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert load(path, on_bad_row="skip") == [Row("a", "r"), Row("b", "r")]
    listed = caplog.messages[0].replace(f"{tmp_path}/", "").splitlines()
    assert listed[0] == "d.jsonl: left out as data.on_bad_row says skip: 6"
    assert listed[1:] == problems_of(path)
    assert len(listed) == 1 + 7  # Row 7 has two problems.
    only_bad = write(tmp_path / "o.jsonl", "\n".join(bad).encode("latin-1"))
    assert problems_of(only_bad, on_bad_row="skip") == problems_of(only_bad)


@pytest.mark.parametrize("content", ["{", '{"instances": {}}', "[]", ""])
def test_a_file_that_cannot_be_read_at_all_is_never_left_out(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "d.json", content)
    assert problems_of(path, on_bad_row="skip") == problems_of(path)


def test_sources_follow_one_another_each_with_its_share(tmp_path: Path) -> None:
    paths = [write_rows(tmp_path / f"{name}.jsonl", *({"prompt": f"{name}{i}"} for i in range(100))) for name in "ab"]
    sources = [FileSource(path=str(path), response_field=None, share=0.29) for path in paths]
    rows = load_rows([*sources, FileSource(path=str(paths[0]), response_field=None, limit=10, share=0.5)])
    expected = [*(f"a{i}" for i in range(29)), *(f"b{i}" for i in range(29)), *(f"a{i}" for i in range(5))]
    assert [row.prompt for row in rows] == expected
    task = TaskSource(kind="task", name="dialogue", split="train", size=10, share=0.25)
    assert load_rows([task]) == dialogue_rows("train", 10, 0)[:2]
    assert problems_of(paths[0], response_field=None, share=0.001) == [
        "error[SKD-D12] a.jsonl: share 0.001 of 100 rows is not one row; raise share or add rows"
    ]


def test_the_problems_of_all_sources_come_at_once(tmp_path: Path) -> None:
    good = write(tmp_path / "c.jsonl", line())
    paths = [write(tmp_path / "a.jsonl", "{"), good, write(tmp_path / "b.jsonl", line(3)), tmp_path / "d.jsonl"]
    with pytest.raises(DataError) as caught:
        load_rows([FileSource(path=str(path)) for path in paths])
    assert [problem.place.replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [
        "a.jsonl:1:2",
        "b.jsonl:1",
        "d.jsonl",
    ]


def test_the_problems_of_both_sets_come_at_once_and_each_once(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "a.jsonl", line()), write(tmp_path / "b.jsonl", "{")
    one, other = [FileSource(path=str(good))], [FileSource(path=str(bad)), FileSource(path=str(tmp_path / "c.jsonl"))]
    assert load_sets(one, ()) == [[Row("p", "r")], []]
    with pytest.raises(DataError) as caught:
        load_sets(other, other[:1])
    places = [problem.place.replace(f"{tmp_path}/", "") for problem in caught.value.problems]
    assert places == ["b.jsonl:1:2", "c.jsonl"]


def test_validation_rows_among_the_training_rows_are_told(caplog: pytest.LogCaptureFixture) -> None:
    train = [Row("a", "1"), Row("b", "2"), Row("b", "2"), Row("c", "3", (Turn("system", "s"),))]
    apart = [Row("a", "2"), Row("c", "3")]
    tell_leak(train, apart, "error")
    assert not caplog.records
    found = "2 of 4 rows are training rows too, first row 2, which is training row 1"
    with caplog.at_level(logging.WARNING):
        tell_leak(train, [*apart, train[1], train[3]], "warn")
    assert caplog.messages == [f"data.validation: {found}"]
    with pytest.raises(DataError) as caught:
        tell_leak(train, [*apart, train[1], train[3]], "error")
    assert str(caught.value) == f"error[SKD-D07] data.validation: {found}; take them out of one of the two"

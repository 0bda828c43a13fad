"""Whatever a file or a conversation holds, it is read or refused in our words: no other exception, no lost meaning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skd.config import FileSource
from skd.data.chat import encode_prompts
from skd.data.rows import Row, Turn
from skd.data.sources import load_rows
from skd.errors import DataError, ModelError, Problem
from tests.data.families import FAMILIES, Family

relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("user"))
KEYS = st.sampled_from(
    ["prompt", "response", "instruction", "dialogue", "summary", "messages", "role", "content", "instances", "x"]
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)
FRAGMENTS = st.sampled_from(
    [
        b'{"prompt": "p", "response": "r"}',
        b"prompt,response\n",
        b"a,b\n",
        b'"',
        b",",
        b"\n",
        b"\r",
        b"[",
        b"]",
        b"{",
        b"}",
        b"\xef\xbb\xbf",
        b"\xe4",
        b"\x00",
        b"NaN",
        b"1e999",
        b"\\ud800",
        "\u2028".encode(),
        b"PAR1",
        b"null",
        b" ",
    ]
)


def loaded(path: Path, on_bad_row: Any = "error", **options: Any) -> tuple[list[Row], Sequence[Problem]]:
    try:
        return load_rows([FileSource(path=str(path), **options)], on_bad_row=on_bad_row), ()
    except DataError as error:
        return [], error.problems


def read_or_refused(path: Path, **options: Any) -> None:
    rows, problems = loaded(path, **options)
    assert bool(rows) != bool(problems)
    for problem in problems:
        assert problem.code.startswith("SKD-D")
        assert str(path.parent) in problem.place
        assert problem.found
        assert problem.remedy
    for row in rows:
        for text in (row.prompt, row.response, *(turn.content for turn in row.context if turn.role != "system")):
            assert text is None or (text.strip() and "\0" not in text)


@relaxed
@given(
    content=st.lists(FRAGMENTS, max_size=12).map(b"".join) | st.binary(max_size=40),
    suffix=st.sampled_from(["json", "jsonl", "csv", "parquet"]),
    on_bad_row=st.sampled_from(["error", "skip"]),
)
def test_files_of_fragments(content: bytes, suffix: str, on_bad_row: Any, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    read_or_refused(path, on_bad_row=on_bad_row)


@relaxed
@given(tree=TREES)
def test_files_of_trees(tree: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    read_or_refused(path)
    read_or_refused(path, messages_field="messages")
    read_or_refused(path, field="x", response_field=None)
    lines = tmp_path / "rows.jsonl"
    lines.write_text("\n".join(json.dumps(item) for item in (tree if isinstance(tree, list) else [tree])))
    read_or_refused(lines)


def texts(family: Family) -> st.SearchStrategy[str]:
    """Texts of the family's characters, with its special tokens spelt out and white space anywhere."""
    parts = st.sampled_from(
        ["a", "yo", " ", "\n", "\n\n", ">", *family.specials, *(text[:-1] for text in family.specials)]
    )
    return st.lists(parts, min_size=1, max_size=6).map("".join).filter(str.strip)


def conversations(family: Family) -> st.SearchStrategy[list[Turn]]:
    exchange = st.tuples(texts(family), texts(family))
    return st.lists(exchange, min_size=1, max_size=3).map(
        lambda pairs: [
            Turn(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    )


def row_of(turns: Sequence[Turn]) -> Row:
    *context, prompt, response = turns
    return Row(prompt.content, response.content, tuple(context))


@pytest.mark.parametrize("name", ["llama2", "llama3", "gemma", "qwen2", "phi3", "mistral"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_trained_turn_is_what_it_was_as_the_last_one(name: str, data: st.DataObject) -> None:
    family = FAMILIES[name]
    tokenizer, turns = family.tokenizer(), data.draw(conversations(family))
    whole = encode_prompts([row_of(turns)], tokenizer, train_on="all", stop_id=family.eos_id)
    assert whole.references is not None
    reference, mask = list(whole.references[0]), [True] * len(whole.references[0])
    if whole.reference_masks is not None:
        mask = list(whole.reference_masks[0])
    place = 0
    for end in range(2, len(turns) + 1, 2):
        last = encode_prompts([row_of(turns[:end])], tokenizer, stop_id=family.eos_id)
        assert last.references is not None
        trained = list(last.references[0])
        while not mask[place]:
            place += 1
        assert reference[place : place + len(trained)] == trained
        assert all(mask[place : place + len(trained)])
        place += len(trained)
        if end == 2:
            assert whole.ids[0] == last.ids[0]
    assert place == len(reference)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_text_writes_a_special_token(name: str, data: st.DataObject) -> None:
    family = FAMILIES[name]
    turns = data.draw(conversations(family))
    plain = [Turn(turn.role, "a") for turn in turns]
    found = []
    for spoken in (turns, plain):
        try:
            prompts = encode_prompts([row_of(spoken)], family.tokenizer(), train_on="last", stop_id=family.eos_id)
        except ModelError:
            found.append(None)
            continue
        assert prompts.references is not None
        ids = [*prompts.ids[0], *prompts.references[0]]
        found.append([i for i in ids if 128 <= i < 128 + len(family.specials)])
    assert found[0] == found[1]

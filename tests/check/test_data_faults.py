"""Every fault of the data, group D of the catalogue, is found before a weight is read."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.check.bench import GOOD_ROWS, OTHER_ROWS, Bench, Fault, row
from tests.check.conftest import Outcome

LONG = "t2 " * 20


def swallowing(bench: Bench) -> None:
    """Both tokenizers drop every x."""
    for role in ("student", "teacher"):
        normalizer = {"type": "Replace", "pattern": {"String": "x"}, "content": ""}
        bench.json(f"{role}/tokenizer.json", normalizer=normalizer)


def no_tokens(bench: Bench) -> None:
    swallowing(bench)
    bench.rows(*GOOD_ROWS, row(response="x"))


def no_prompt_tokens(bench: Bench) -> None:
    swallowing(bench)
    bench.rows(*GOOD_ROWS, row(prompt="x"))


FAULTS = {
    "missing": Fault(
        lambda b: (b.root / "train.jsonl").unlink(), 3, "D01", "train.jsonl", "no such file", "correct the path"
    ),
    "empty": Fault(
        lambda b: (b.root / "train.jsonl").write_bytes(b""), 3, "D01", "train.jsonl", "is empty", "at least one row"
    ),
    "blank lines": Fault(lambda b: b.rows("", "  ", ""), 3, "D01", "train.jsonl", "no rows", "at least one row"),
    "directory": Fault(
        lambda b: None, 3, "D01", "student", "this is a directory", "correct the path", ["data.train=student"]
    ),
    "suffix": Fault(
        lambda b: b.rows("x", name="rows.txt"),
        3,
        "D01",
        "rows.txt",
        "'.txt' names no",
        "use .json",
        ["data.train=rows.txt"],
    ),
    "empty list": Fault(
        lambda b: b.rows("[]", name="r.json"), 3, "D01", "r.json", "no rows", "at least one row", ["data.train=r.json"]
    ),
    "validation missing": Fault(
        lambda b: (b.root / "validation.jsonl").unlink(), 3, "D01", "validation.jsonl", "no such file", "correct"
    ),
    "broken line": Fault(
        lambda b: b.rows(*GOOD_ROWS, '{"prompt": "t2", oops'),
        3,
        "D02",
        "train.jsonl:9:",
        "not JSON",
        "one JSON object",
    ),
    "cut last line": Fault(
        lambda b: b.rows(*GOOD_ROWS, '{"prompt": "t2", "resp'), 3, "D02", "train.jsonl:9:", "Unterminated", "one JSON"
    ),
    "deep line": Fault(
        lambda b: b.rows(*GOOD_ROWS, "[" * 100_000), 3, "D02", "train.jsonl:9", "nested too deeply", "one JSON object"
    ),
    "endless number": Fault(
        lambda b: b.rows(*GOOD_ROWS, '{"prompt": ' + "9" * 10_000 + "}"),
        3,
        "D02",
        "train.jsonl:9",
        "thousands of",
        "one",
    ),
    "broken json": Fault(
        lambda b: b.rows("[{]", name="r.json"), 3, "D02", "r.json:1:", "not JSON", "correct it", ["data.train=r.json"]
    ),
    "broken parquet": Fault(
        lambda b: b.rows("PAR1", name="r.parquet"),
        3,
        "D02",
        "r.parquet",
        "as parquet",
        "again",
        ["data.train=r.parquet"],
    ),
    "latin-1": Fault(
        lambda b: b.rows(*GOOD_ROWS, b'{"prompt": "caf\xe9"}'), 3, "D03", "train.jsonl:9", "0xe9 at offset", "UTF-8"
    ),
    "surrogate": Fault(
        lambda b: b.rows(*GOOD_ROWS, row("t2 \ud800")), 3, "D03", "train.jsonl:9", "U+D800 at character 3", "surrogates"
    ),
    "NUL": Fault(lambda b: b.rows(*GOOD_ROWS, row("t2\0")), 3, "D03", "train.jsonl:9", "U+0000 at character 2", "NUL"),
    "no field": Fault(
        lambda b: b.rows(*GOOD_ROWS, {"question": "t2"}),
        3,
        "D04",
        "train.jsonl:9",
        "no field 'prompt'",
        "prompt_field",
        (),
        1,
    ),
    "null": Fault(
        lambda b: b.rows(*GOOD_ROWS, row(None)), 3, "D04", "train.jsonl:9", "is null, not text", "'prompt' text"
    ),
    "number": Fault(lambda b: b.rows(*GOOD_ROWS, row(7)), 3, "D04", "train.jsonl:9", "is a number", "'prompt' text"),
    "list": Fault(lambda b: b.rows(*GOOD_ROWS, row(["t2"])), 3, "D04", "train.jsonl:9", "is a list", "'prompt' text"),
    "boolean": Fault(
        lambda b: b.rows(*GOOD_ROWS, row(response=True)),
        3,
        "D04",
        "train.jsonl:9",
        "is true or false",
        "'response' text",
    ),
    "no object": Fault(lambda b: b.rows(*GOOD_ROWS, "[1]"), 3, "D04", "train.jsonl:9", "a list where", "an object"),
    "one object": Fault(
        lambda b: b.rows('{"rows": []}', name="r.json"),
        3,
        "D04",
        "r.json",
        "one object",
        "set field",
        ["data.train=r.json"],
    ),
    "no response": Fault(
        lambda b: b.rows(*GOOD_ROWS, {"prompt": "t2"}), 3, "D04", "train.jsonl:9", "no field 'response'", "or to null"
    ),
    "empty prompt": Fault(
        lambda b: b.rows(*GOOD_ROWS, row("")), 3, "D05", "train.jsonl:9", "'prompt' is empty", "fill or"
    ),
    "blank prompt": Fault(
        lambda b: b.rows(*GOOD_ROWS, row(" \t\n")), 3, "D05", "train.jsonl:9", "'prompt' is empty", "fill or remove"
    ),
    "empty response": Fault(
        lambda b: b.rows(*GOOD_ROWS, row(response="")),
        3,
        "D05",
        "train.jsonl:9",
        "'response' is empty",
        "fill or remove",
    ),
    "prompt without tokens": Fault(
        no_prompt_tokens, 3, "D05", "data.train", "1 of 9 prompts have no tokens, first in row 8", "fill or remove"
    ),
    "leak": Fault(
        lambda b: b.rows(*OTHER_ROWS, GOOD_ROWS[0], name="validation.jsonl"),
        3,
        "D07",
        "data.validation",
        "1 of 4 rows are training rows too, first row 3, which is training row 0",
        "take them out",
        ["--fail-on-leak"],
    ),
    "long prompt": Fault(
        lambda b: b.rows(*GOOD_ROWS, row(LONG)),
        3,
        "D08",
        "data.train, data.max_prompt_tokens",
        "1 of 9 prompts are longer than 16 tokens; the longest, row 8, has 20",
        "on_long_prompt",
    ),
    "nothing left": Fault(
        lambda b: b.rows(*[row(LONG)] * 4),
        3,
        "D08",
        "data.train, data.max_prompt_tokens",
        "nothing is left of them",
        "raise the limit",
        ["data.on_long_prompt=skip"],
    ),
    "context of the student": Fault(
        lambda b: b.json("student/config.json", max_position_embeddings=9),
        3,
        "D09",
        "data.train, student, prompt 0",
        "prompt 2 + response 8 = 10 tokens exceed the context of 9",
        "max_new_tokens",
        (),
        1,
    ),
    "context of the teacher": Fault(
        lambda b: b.json("teacher/config.json", max_position_embeddings=9),
        3,
        "D09",
        "data.validation, teacher, prompt 0",
        "= 10 tokens exceed the context of 9",
        "shorten the prompts",
        (),
        1,
    ),
    "context of references": Fault(
        lambda b: b.rows(*GOOD_ROWS, row(response="t4 " * 63)),
        3,
        "D09",
        "data.train, student, prompt 8",
        "prompt 2 + response 64 = 66 tokens exceed the context of 64",
        "shorten",
        ["method=supervised_kd"],
        1,
    ),
    "response without tokens": Fault(
        no_tokens, 3, "D11", "data.train", "1 of 9 responses have no token but the end token, first in row 8", "fill or"
    ),
    "fewer rows than a batch": Fault(
        lambda b: b.rows(*GOOD_ROWS[:3]),
        3,
        "D12",
        "train.jsonl",
        "3 rows, but at least 4 are needed",
        "lower the batch",
    ),
    "task too large": Fault(
        lambda b: None,
        3,
        "D17",
        "size",
        "a task gives 1 to",
        "choose a size",
        ["data.train={kind: task, name: number_words, split: train, size: 2000000000}"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_found_and_told(name: str, bench: Bench, look: Callable[..., Outcome]) -> None:
    fault = FAULTS[name]
    fault.damage(bench)
    outcome = look("run.yaml", *fault.overrides)
    outcome.assert_told(fault)


def test_an_empty_response_may_be_kept_to_teach_the_end(bench: Bench, look: Callable[..., Outcome]) -> None:
    bench.rows(*GOOD_ROWS, row(response=" "), row(response=""))
    outcome = look("run.yaml", "data.on_empty=keep")
    assert outcome.exit == 0, outcome.out
    assert "data.train: 2 of 10 responses are empty and teach to end at once" in outcome.out


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("method=supervised_kd", "the rows have no responses, and policy data_set trains on them"),
        ("method=imitkd", "trains on them; policy.kind mixture has it as a part"),
    ],
)
def test_a_policy_that_needs_responses_finds_none(
    override: str, found: str, bench: Bench, look: Callable[..., Outcome]
) -> None:
    messages = [json.dumps({"messages": [{"role": "user", "content": f"t{n}"}]}) for n in range(2, 10)]
    bench.rows(*messages)
    outcome = look("run.yaml", override, "data.validation=null")
    assert outcome.exit == 2, outcome.out
    (message,) = outcome.messages
    assert (message["code"], message["place"]) == ("SKD-C10", "data.train")
    assert found in message["text"]

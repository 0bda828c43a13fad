"""The data section: sources alone and in lists, and what a user gets for a mistake in one."""

from collections.abc import Callable

import pytest

from skd.config import FileSource, HubSource, RunConfig, TaskSource, config_digest, dump_config

MODELS = "teacher: t\nstudent: s\n"
Load = Callable[..., RunConfig]
Problems = Callable[..., list[str]]

MIXED = f"""{MODELS}data:
  train:
    - a.json
    - path: b.json
      share: 0.5
    - {{kind: hub, id: openai/gsm8k, config: main, revision: 0a1b, prompt_field: question, response_field: answer}}
    - {{kind: task, name: dialogue, split: train, size: 3}}
  validation: [a.json]
"""


def test_sources_in_a_list(load: Load) -> None:
    data = load(MIXED).data
    hub = {"config": "main", "revision": "0a1b", "prompt_field": "question", "response_field": "answer"}
    assert data.train == (
        FileSource(path="a.json"),
        FileSource(path="b.json", share=0.5),
        HubSource(kind="hub", id="openai/gsm8k", **hub),
        TaskSource(kind="task", name="dialogue", split="train", size=3),
    )
    assert data.validation == (FileSource(path="a.json"),)


def test_a_list_is_dumped_and_overridden_by_index(load: Load) -> None:
    config = load(MIXED, "data.train.0.limit=7", "data.train.1.share=1", "data.train.3.size=4")
    assert [getattr(source, "limit", None) for source in config.data.train] == [7, None, None, None]
    assert (config.data.train[1].share, getattr(config.data.train[3], "size", 0)) == (1.0, 4)
    text = dump_config(config)
    assert load(text) == config
    assert "  train:\n    - kind: file\n      path: a.json\n" in text
    assert load(
        MIXED, "data.train.2.kind=task", "data.train.2.name=dialogue", "data.train.2.split=test", "data.train.2.size=1"
    )


def test_one_source_is_written_without_a_list(load: Load) -> None:
    alone, listed = (load(f"{MODELS}data: {{train: {value}}}\n") for value in ("x.json", "[x.json]"))
    assert config_digest(alone) == config_digest(listed)
    assert "  train:\n    kind: file\n    path: x.json\n" in dump_config(alone)
    assert load(dump_config(alone), "data.train.limit=3").data.train == (FileSource(path="x.json", limit=3),)


MISTAKES = [
    ("[]", "data.train is a list, expected a list that is not empty; "),
    (
        "[{path: x}, {promt_field: q, path: y}]",
        "data.train.1.promt_field is an unknown key; did you mean data.train.1.prompt_field?",
    ),
    ("[{path: x, name: dialogue}]", "data.train.0.name is an unknown key"),
    ("[x, {field: y}]", "data.train.1.path is missing; add data.train.1.path (The file)"),
    ("[x, 3]", "data.train.1 is 3, expected text, or a mapping of keys to values"),
    ("3", "data.train is 3, expected text, or a mapping of keys to values"),
    (
        "[{kind: hug, id: a/b}]",
        'data.train.0.kind is the text "hug", expected one of file, hub, task, responses; did you mean hub?',
    ),
    (
        "{kind: hub, id: gsm8k}",
        'data.train.id is the text "gsm8k", expected an id of the form OWNER/NAME; '
        "correct data.train.id (Id of the data set, such as openai/gsm8k)",
    ),
    ("{kind: hub, id: ../x/y}", "expected an id of the form OWNER/NAME"),
    (
        "[{path: x, share: 1.5}]",
        "data.train.0.share is 1.5, expected a number above 0 and at most 1; write for example data.train.0.share: 1.0",
    ),
    ("{path: x, share: 0}", "data.train.share is 0, expected a number above 0 and at most 1"),
    (
        "{path: x, messages_field: m, prompt_field: q}",
        "data.train.prompt_field is given and messages_field is too; remove prompt_field",
    ),
    (
        "[x, {path: x, messages_field: m, response_field: r}]",
        "data.train.1.response_field is given and messages_field is too; remove response_field",
    ),
]


@pytest.mark.parametrize(("value", "message"), MISTAKES)
def test_mistakes_in_a_source_have_its_place(value: str, message: str, problems: Problems) -> None:
    found = problems(f"{MODELS}data:\n  train: {value}\n")
    assert len(found) == 1, found
    assert found[0].split("] ")[1].startswith("train.yaml:4: ")
    assert message in found[0]


def test_a_source_of_a_list_without_responses_is_named(problems: Problems) -> None:
    text = "method: sft\nstudent: s\ndata:\n  train:\n    - x\n    - path: y\n      response_field: null\n"
    assert problems(text) == [
        "error[SKD-C10] train.yaml:7: method sft (policy data_set) trains on the responses of the data, and "
        "data.train.1.response_field is null; name the field in data.train.1.response_field, or choose another method"
    ]


def test_an_override_beyond_the_list_is_refused(problems: Problems) -> None:
    assert problems(MIXED, "data.train.4.limit=1")[0] == (
        "error[SKD-C05] --override data.train.4.limit: data.train is a list of 4, whose items are data.train.0 and so "
        "on; override data.train as a whole"
    )

"""The options of ``skd evaluate`` become choices, and mistakes are said before a model is opened."""

import json
from pathlib import Path

import pytest

from skd.cli import main
from skd.errors import ConfigError
from skd.evaluate.command import EvaluateOptions, _outs, choices_of
from skd.evaluate.workload import Choice


def test_tasks_and_their_files():
    assert choices_of(EvaluateOptions()) == [Choice("number_words")]
    assert choices_of(EvaluateOptions("gsm8k", ("a=b.json",), 5)) == [Choice("gsm8k", "a=b.json", size=5)]
    options = EvaluateOptions("gsm8k, math,dialogue", ("math=m.json", "gsm8k=g.json"))
    assert choices_of(options) == [Choice("gsm8k", "g.json"), Choice("math", "m.json"), Choice("dialogue")]


@pytest.mark.parametrize(
    ("tasks", "data", "message"),
    [
        ("gsm8k,math", ("x.json",), "'x.json' does not say which task it is for; write gsm8k=FILE"),
        ("gsm8k", ("a.json", "b.json"), "'b.json' does not say which task"),
        ("gsm8k,gsm8k", (), "names a task twice, or none"),
        (" ,", (), "names a task twice, or none"),
    ],
)
def test_tasks_and_files_that_do_not_fit(tasks, data, message):
    with pytest.raises(ConfigError) as caught:
        choices_of(EvaluateOptions(tasks, data))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--task number_word",
            "error[SKD-E19] task: 'number_word' is none of number_words, dialogue, toy_translation, sums, gsm8k",
        ),
        ("--task gsm8k", "error[SKD-E19] task gsm8k: reads its rows from a file, and none is given; name the file"),
        ("--data rows.json", "error[SKD-C10] data: number_words generates its rows, and the file rows.json is given"),
        ("--task gsm8k --data a\x07b", "error[SKD-C12] --data: 'a\\x07b' is no path: it is empty or holds control"),
    ],
)
def test_mistakes_are_said_before_the_model_is_opened(arguments, message, capsys):
    assert main(["evaluate", "no-such-model", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_several_tasks_write_into_a_directory():
    choices = [Choice("gsm8k"), Choice("tasks/my.yaml"), Choice("translation:German-English")]
    names = [Path("o/gsm8k.jsonl"), Path("o/my.jsonl"), Path("o/translation-German-English.jsonl")]
    assert _outs(Path("o"), choices) == names
    assert _outs(Path("o.jsonl"), choices[:1]) == [Path("o.jsonl")]
    with pytest.raises(ConfigError, match="there are 3 tasks"):
        _outs(Path("o.jsonl"), choices)


def test_grade_prints_one_object_per_line(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"answer": "1/2", "reference": "0.5"}\n{"answer": "", "reference": "1"}\n')
    assert main(["evaluate", "--grade", str(path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["verdict"] for line in lines] == ["equal", "no-answer"]
    assert main(["evaluate", "--grade", str(tmp_path / "none.jsonl")]) == 3

"""Whole evaluations of file tasks with a tiny model: stops, resume, independence of batches, what is written."""

import json
import logging

import pytest

from skd.errors import ConfigError, DataError
from skd.evaluate import engines
from skd.evaluate.comet import Comet
from skd.evaluate.run import Decoding, evaluate, evaluate_tasks
from skd.evaluate.samples import Samples
from skd.evaluate.workload import Choice
from skd.models import load_pair
from tests.tiny import save_tiny

TASK = """\
prompt: "t2 {question} t3"
reference: "{answer}"
metric: exact
stop_strings: ["t9"]
max_new_tokens: 12
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return load_pair(None, save_tiny(tmp_path_factory.mktemp("model"), "llama", seed=1))


@pytest.fixture
def files(tmp_path):
    """A task file and its data: 30 prompts."""
    rows = [{"question": f"t{5 + i % 50} t{5 + (7 * i) % 50}", "answer": f"t{i + 4}"} for i in range(30)]
    (tmp_path / "task.yaml").write_text(TASK)
    (tmp_path / "rows.json").write_text(json.dumps({"instances": rows}))
    return str(tmp_path / "task.yaml"), str(tmp_path / "rows.json")


def test_responses_end_before_a_stop_string_and_do_not_depend_on_the_batch(pair, files):
    task, data = files
    whole = evaluate(pair, task, data=data, slots=30)
    small = evaluate(pair, task, data=data, slots=3)
    assert whole.responses == small.responses
    assert not any("t9" in response for response in whole.responses)
    assert any(len(response.split()) < 12 for response in whole.responses)
    assert whole.n == 30
    assert len(whole.correct) == len(whole.values) == 30


def test_temperature_draws_by_seed_and_item(pair, files):
    task, data = files
    drawn = [evaluate(pair, task, data=data, temperature=1.0, seed=seed, slots=slots).responses for seed, slots in
             ((0, 30), (0, 2), (1, 30))]  # fmt: skip
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_killed_evaluation_goes_on_where_it_was(pair, files, tmp_path, monkeypatch):
    task, data = files
    whole = evaluate(pair, task, data=data, out=tmp_path / "whole.jsonl", slots=2)
    out, calls, real = tmp_path / "cut.jsonl", [], engines.interleave

    def dies(*args, **settings):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(args[1]))
        return real(*args, **settings)

    monkeypatch.setattr(engines, "interleave", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate(pair, task, data=data, out=out, slots=2)
    partial = out.with_name("cut.jsonl.partial")
    with partial.open("a") as file:
        file.write('{"item": 16, "pro')
    calls.clear()
    monkeypatch.setattr(
        engines, "interleave", lambda *args, **settings: calls.append(len(args[1])) or real(*args, **settings)
    )
    resumed = evaluate(pair, task, data=data, out=out, slots=2)
    assert sum(calls) == 30 - 16
    assert resumed.responses == whole.responses
    assert out.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert not partial.exists()


def test_samples_of_another_evaluation_are_not_continued(pair, files, tmp_path):
    task, data = files
    out = tmp_path / "s.jsonl"
    (tmp_path / "s.jsonl.partial").write_text('{"evaluation": "0"}\n{"item": 0}\n')
    with pytest.raises(ConfigError, match=r"SKD-E16.*samples of another evaluation"):
        evaluate(pair, task, data=data, out=out)


@pytest.mark.parametrize("header", [b"garbage", b"[]", b"\xff\x00", b"[" * 10_000])
def test_a_partial_file_that_is_none_is_refused(pair, files, tmp_path, header):
    task, data = files
    (tmp_path / "s.jsonl.partial").write_bytes(header + b"\n")
    with pytest.raises(ConfigError, match=r"SKD-E16.*samples of another evaluation"):
        evaluate(pair, task, data=data, out=tmp_path / "s.jsonl")


@pytest.mark.parametrize(
    "damage", [b"\x00\x00", b"no JSON", b'{"item": 9, "finding": {"correct": true}}', b'{"item": 3, "finding": {}}']
)
def test_what_follows_a_damaged_sample_is_answered_again(pair, files, tmp_path, monkeypatch, caplog, damage):
    task, data = files
    out, kept = tmp_path / "s.jsonl", []
    with monkeypatch.context() as patch:
        patch.setattr(Samples, "finish", lambda *unused: kept.append(out.with_name("s.jsonl.partial").read_bytes()))
        whole = evaluate(pair, task, data=data, out=out, slots=2)
    lines = kept[0].split(b"\n")
    lines[4] = damage
    out.with_name("s.jsonl.partial").write_bytes(b"\n".join(lines))
    with caplog.at_level(logging.WARNING):
        resumed = evaluate(pair, task, data=data, out=out, slots=2)
    assert "line 5 is damaged; 27 samples are made again" in caplog.text
    assert resumed.responses == whole.responses
    assert [json.loads(line)["item"] for line in out.read_text().splitlines()] == list(range(30))


def test_what_is_written(pair, files, tmp_path):
    task, data = files
    out = tmp_path / "s.jsonl"
    result = evaluate(pair, task, data=data, out=out, size=5)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["item"] for line in lines] == list(range(5))
    assert set(lines[0]) == {"item", "prompt", "reference", "response", "ids", "truncated", "score", "correct"}
    assert lines[0]["prompt"] == "t2 t5 t5 t3"
    summary = json.loads((tmp_path / "s.summary.json").read_text())
    assert summary["n"] == 5
    assert summary["scores"]["exact_match"]["interval_95"] == list(result.interval)
    assert summary["decoding"]["stop_strings"] == ["t9"]
    assert summary["decoding"]["max_new_tokens"] == 12
    assert summary["decoding"]["chat_template"] is False
    assert len(summary["data"]["sha256"]) == 64
    assert summary["versions"]["torch"]


def test_several_tasks_load_one_model(pair, files, tmp_path):
    task, data = files
    choices = [Choice(task, data), Choice(task, data, size=3)]
    results = list(evaluate_tasks(pair, choices, [tmp_path / "a.jsonl", None], Decoding()))
    assert [result.n for result in results] == [30, 3]
    assert results[1].responses == results[0].responses[:3]


def test_long_prompts_are_refused_or_cut_as_told(pair, tmp_path):
    (tmp_path / "t.yaml").write_text(TASK + "max_prompt_tokens: 3\n")
    (tmp_path / "r.jsonl").write_text('{"question": "t5", "answer": "t6"}\n{"question": "t5 t6", "answer": "t6"}\n')
    task, data = str(tmp_path / "t.yaml"), str(tmp_path / "r.jsonl")
    with pytest.raises(DataError, match="SKD-D08"):
        evaluate(pair, task, data=data)
    cut = list(evaluate_tasks(pair, [Choice(task, data)], [None], Decoding(long_prompts="truncate_left")))
    assert cut[0].n == 2


def test_references_without_an_answer_and_leaks(pair, tmp_path, caplog):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": "1 + 1 = 2 ####"}) + "\n")
    with pytest.raises(DataError, match=r"SKD-E10.*1 of 1 references state no number, first in row 0"):
        evaluate(pair, "gsm8k", data=path)
    path.write_text(json.dumps({"question": "q", "answer": "None"}) + "\n")
    with pytest.raises(DataError, match=r"SKD-E10.*1 of 1 references state no number.*use --task math"):
        evaluate(pair, "gsm8k", data=path)
    (tmp_path / "t.yaml").write_text(TASK)
    path.write_text(json.dumps({"question": "t5 t6 t7 t8 t10 t11 t12", "answer": "t5 t6 t7 t8 t10 t11 t12"}) + "\n")
    with caplog.at_level(logging.WARNING):
        evaluate(pair, str(tmp_path / "t.yaml"), data=path)
    assert "1 prompts hold their own reference" in caplog.text


TRANSLATION = '{"src": "t5", "tgt": "t6"}\n{"src": "t7", "tgt": "t8"}\n'
COMET_SCORE = """\
#!/usr/bin/env python3
import argparse, json, sys
parser = argparse.ArgumentParser()
for name in ("sources", "translations", "references", "model", "to_json", "gpus"):
    parser.add_argument("--" + name)
parser.add_argument("--quiet", action="store_true")
parser.add_argument("--only_system", action="store_true")
options = parser.parse_args()
if options.model == "missing":
    sys.exit("no such model")
sources = open(options.sources).read().splitlines()
segments = [{"src": source, "COMET": 0.5 + 0.25 * number} for number, source in enumerate(sources)]
assert sources == ["t5", "t7"], sources
json.dump({"translations.txt": segments}, open(options.to_json, "w"))
"""


@pytest.fixture
def translation(pair, tmp_path):
    """Rows to translate, and a stand-in for unbabel-comet's program with its options."""
    (tmp_path / "r.jsonl").write_text(TRANSLATION)
    program = tmp_path / "comet-score"
    program.write_text(COMET_SCORE)
    program.chmod(0o755)
    return Choice("translation:German-English", str(tmp_path / "r.jsonl"), max_new_tokens=4), str(program)


def test_comet_scores_come_from_its_own_program(pair, translation):
    choice, program = translation
    (result,) = evaluate_tasks(pair, [choice], [None], comet=Comet(program))
    assert list(result.scores) == ["bleu", "chrf", "comet"]
    assert result.scores["comet"].value == 0.625
    assert result.scores["comet"].signature == "comet|model:Unbabel/wmt22-comet-da"
    assert len(result.lines()) == 3


def test_comet_that_cannot_be_had_is_said_first_and_one_that_fails_afterwards(pair, translation, files):
    choice, program = translation
    with pytest.raises(ConfigError, match=r"SKD-E15.*no program that can be run; make an environment for it"):
        list(evaluate_tasks("no model", [choice], [None], comet=Comet("no-comet-score")))
    with pytest.raises(ConfigError, match="no task is one"):
        list(evaluate_tasks("no model", [Choice(*files)], [None], comet=Comet(program)))
    with pytest.raises(Exception, match="no such model; run it by hand"):
        list(evaluate_tasks(pair, [choice], [None], comet=Comet(program, "missing")))

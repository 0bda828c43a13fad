"""Costs that a run measures: once, by one process for all, recorded, and kept when it is resumed."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import skd.train.costs
from skd.config import config_of, load_config
from skd.generate import generate_responses
from skd.responses import UNFINISHED_FILE
from skd.sampling.pace import Costs
from skd.train import train
from skd.train.resume import find_start
from tests.train.conftest import ROWS, end_state, open_pair, open_run, run_train
from tests.train.test_ranks import run_as_ranks

KNOWN = {"student": (30.0, 2.0), "teacher": (90.0, 4.0)}


@pytest.fixture
def measured(monkeypatch):
    """Measurements of a machine that is never the same: blocks of 8, then of 1, then of 8."""
    asked = []

    def measure(pair, prompts, rows, max_new_tokens, execution):
        asked.append(rows)
        look = 1e3 if len(asked) % 2 else 1e-9
        return Costs((1e-6 * len(asked), 0.0), (look, 0.0))

    monkeypatch.setattr(skd.train.costs, "measured_costs", measure)
    return asked


def recorded(config):
    return load_config(Path(config["output"]) / "config.yaml").sampling.costs


def with_costs(config, costs="measured", **changes):
    return {**config, "sampling": {**config["sampling"], "costs": costs}, **changes}


def test_a_run_goes_by_sizes_unless_it_is_told(settings, measured):
    assert open_run(settings()).pair.costs is None
    assert not measured


def test_costs_are_measured_once_recorded_and_kept(settings, measured, tmp_path, capsys):
    config = with_costs(settings(max_steps=2))
    train(config, pair=open_pair(config), prompts=ROWS, validation=ROWS)
    assert "recorded in config.yaml: student 1 us + 0 us a token, teacher 1e+09 us" in capsys.readouterr().err
    first = recorded(config)
    assert first.microseconds["student"] == (1.0, 0.0)
    config["train"]["max_steps"] = 4
    train(config, pair=open_pair(config), prompts=ROWS, validation=ROWS)
    assert "recorded in config.yaml" not in capsys.readouterr().err
    assert recorded(config) == first
    assert measured == [4]
    run_train({**config, "output": str(tmp_path / "other")})
    assert recorded({"output": tmp_path / "other"}) != first


def test_a_run_that_was_killed_ends_as_one_that_was_not(settings, measured, tmp_path):
    whole = with_costs(settings(), {"kind": "measured", "microseconds": {"student": [1, 0], "teacher": [1e9, 0]}})
    run_train({**whole, "output": str(tmp_path / "whole")})
    config = with_costs(settings())
    child = os.fork()
    if child == 0:

        def kill(name):
            if name == "save.prune":
                os._exit(9)

        with skd.faults.hooked(kill):
            run_train(config)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    measured.append(0)  # what this machine would say now gives other blocks
    run_train(config)
    ours, wholes = (end_state(path, 6) for path in (config["output"], tmp_path / "whole"))
    assert {key: value for key, value in ours.items() if key != "state"} == {
        key: value for key, value in wholes.items() if key != "state"
    }


def test_costs_of_another_run_are_taken_and_not_measured(settings, measured):
    run = open_run(with_costs(settings(), {"kind": "measured", "microseconds": KNOWN}))
    assert run.pair.costs == Costs(KNOWN["student"], KNOWN["teacher"])
    assert not measured


def test_rows_are_those_of_one_process_and_no_more_than_the_slots(settings, measured):
    config = with_costs(settings(batch_size=2))
    open_run(config)
    config["sampling"] |= {"responses_per_prompt": 9}
    open_run(config)
    assert measured == [2, 4]


@pytest.mark.parametrize("method", ["on_policy", "supervised_kd"])
def test_nothing_is_measured_where_no_draft_is_judged(settings, measured, method):
    config = with_costs(settings(method=method))
    if method == "supervised_kd":
        config["sampling"] = {"costs": "measured"}
    assert open_run(config).pair.costs is None
    assert not measured


def test_all_processes_have_the_costs_of_the_first(settings, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(
        skd.train.costs, "measured_costs", lambda *_: Costs((float(os.environ["RANK"]) + 1.0, 0.0), (2.0, 3.0))
    )
    taken = skd.train.costs.Costs

    def noted(student, teacher):
        (tmp_path / f"costs-{os.environ['RANK']}").write_text(json.dumps([student, teacher]))
        return taken(student, teacher)

    monkeypatch.setattr(skd.train.costs, "Costs", noted)
    config = with_costs(settings(max_steps=1))
    assert run_as_ranks(config, 2) == [0, 0]
    first, second = (json.loads((tmp_path / f"costs-{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert tuple(first[0]) == recorded(config).microseconds["student"]


def test_each_of_several_teachers_is_measured(settings, measured, models, tmp_path):
    config = with_costs(settings(), teacher={"route": "subject", "by": {n: str(models / "teacher") for n in "ab"}})
    rows = replace(ROWS, routes=["a", "b"] * 5)
    pair = skd.load_pair({n: skd.config.TeacherModel(path=str(models / "teacher")) for n in "ab"}, config["student"])
    run = open_run(config, rows, pair)
    assert set(run.config.sampling.costs.microseconds) == {"student", "teacher.by.a", "teacher.by.b"}
    assert [run.pair.of(name).costs.teacher[0] for name in "ab"] == [1e9, pytest.approx(1e-3)]


def test_stored_responses_go_on_with_the_costs_that_they_were_begun_with(settings, measured, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"prompt": f"t{2 + i}", "response": "t5"} for i in range(5)]))
    config = with_costs(settings(), data={"train": str(tmp_path / "rows.json")})
    index = generate_responses(config_of(config), tmp_path / "out", display=False)
    assert index.origin["microseconds"]["student"] == (1.0, 0.0)
    (tmp_path / "out" / index.shards[-1].name).unlink()
    (tmp_path / "out" / "index.json").rename(tmp_path / "out" / UNFINISHED_FILE)
    again = generate_responses(config_of(config), tmp_path / "out", display=False)
    assert {**again.origin["microseconds"]} == {"student": [1.0, 0.0], "teacher": [1e9, 0.0]}
    assert again.shards == index.shards
    assert len(measured) == 1


def test_a_run_may_change_to_measured_costs(settings, measured, tmp_path):
    config = settings(max_steps=2)
    run_train(config)
    changed = with_costs(settings(max_steps=3))
    assert find_start(Path(config["output"]), config_of(changed), "auto", lambda _: None) is not None
    run_train(changed)
    assert measured == [4]
    assert recorded(changed).microseconds["student"] == (1.0, 0.0)

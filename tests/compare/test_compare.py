"""A whole comparison of a few steps: what it writes, and what a second call does."""

from __future__ import annotations

import json

import pytest

from skd.compare import compare, show_states
from skd.compare.plan import load_plan
from skd.compare.run import Comparison
from skd.errors import CheckpointError, SkdError
from tests.compare.plans import PLAN, write_plan

STAGES = {
    "blank": {"fresh": "builtin:number_words/student", "seed": 1},
    "start": {
        "config": {
            "method": "sft",
            "student": "stage:blank",
            "data": {"train": {"kind": "task", "name": "number_words", "split": "train", "size": 8}},
            "train": {"batch_size": 4, "max_steps": 1, "lr": 1e-3},
        }
    },
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished comparison: a stage, tuning, equal steps, equal teacher FLOPs."""
    directory = tmp_path_factory.mktemp("compare")
    path = write_plan(
        directory,
        stages=STAGES,
        settings={"made": {"config": {"student": "stage:start"}}},
        methods={"supervised_kd": {"method": "supervised_kd"}, "skd": {}},
        reference="supervised_kd",
        tune={
            "trials": [{"train.lr": 1e-3}, {"train.lr": 2e-3}],
            "items": {"task": "number_words", "split": "validation", "size": 4, "seed": 6},
        },
        budgets=[{"kind": "teacher_flops", "like": "skd"}],
    )
    compare(path)
    return path, directory / "out"


def lines(out):
    return [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]


def test_every_cell_has_a_line_with_scores_costs_and_provenance(done):
    _, out = done
    cells = [line for line in lines(out) if line["budget"] == "steps"]
    assert [(cell["method"], cell["seed"]) for cell in cells] == [
        (method, seed) for method in ("supervised_kd", "skd") for seed in (0, 1)
    ]
    for cell in cells:
        score = cell["scores"]["number_words"]["exact_match"]
        assert score["n"] == 12
        assert len(score["interval_95"]) == 2
        assert cell["steps"] == 2
        assert min(cell["tokens"], cell["seconds"], cell["cpu_seconds"], cell["teacher_flops"]) > 0
        assert [point["step"] for point in cell["curve"]] == [0, 1, 2]
        assert {"versions", "commit", "date", "digest", "config_digest", "items_digests", "models"} <= cell.keys()
    students = {cell["models"]["student"]["digest"] for cell in cells}
    assert len(students) == 1, "one starting student for all"


def test_tuning_gives_every_method_the_same_trials(done):
    _, out = done
    trials = [(line["method"], line["budget"]) for line in lines(out) if line["budget"].startswith("trial")]
    assert sorted(trials) == sorted((m, t) for m in ("supervised_kd", "skd") for t in ("trial-0", "trial-1"))


def test_tables_plots_and_page_are_written(done):
    _, out = done
    tables = json.loads((out / "results.json").read_text())["tables"]
    assert tables[0]["budget"] == "steps"
    assert {row["method"] for row in tables[0]["rows"]} == {"supervised_kd", "skd"}
    assert {row["rank"] for row in tables[0]["rows"]} <= {"best", "tie", "behind"}
    assert set(tables[0]["models"]) == {"teacher", "start"}
    text = (out / "results.md").read_text()
    assert "### made, equal steps: number_words, 12 items, 2 seeds" in text
    page = (out / "index.html").read_text()
    for said in ("tie", "supervised_kd", "CPU seconds of training", "Satterthwaite"):
        assert said in page
    plots = sorted(path.name for path in (out / "plots").iterdir())
    assert len(plots) == 3
    assert all("<svg" in (out / "plots" / name).read_text() for name in plots)


def test_a_second_call_repeats_nothing(done, capsys):
    path, out = done
    before = {file: file.stat().st_mtime_ns for file in out.rglob("record.json")}
    compare(path)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("record.json")} == before
    assert "[" not in capsys.readouterr().out.split("made, equal steps")[0].replace("tuned", "")
    show_states(path)
    states = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert set(states) == {"finished"}


def test_a_changed_stage_makes_all_that_is_built_on_it_stale(done, tmp_path):
    path, _ = done
    changed = json.loads(path.read_text())
    changed["stages"]["start"]["config"]["train"]["lr"] = 5e-3
    (tmp_path / "plan.yaml").write_text(json.dumps(changed))
    plan = load_plan(tmp_path / "plan.yaml")
    comparison = Comparison(plan, done[1])
    states = {job.name: state for job, state in comparison.survey()}
    assert states["stage blank"] == "finished"
    assert "config.train.lr was 0.001, is 0.005" in states["stage start"]
    assert states["trial-0 / made / skd / seed 1000"] == "stale: made.student.config.train.lr was 0.001, is 0.005"
    with pytest.raises(CheckpointError, match=r"stage start is stale: config\.train\.lr was 0.001, is 0.005") as caught:
        compare(tmp_path / "plan.yaml")
    assert len(caught.value.problems) == sum(state.startswith("stale") for state in states.values()) > 1


def test_a_changed_method_makes_its_cells_stale_and_no_others(tmp_path):
    plan = load_plan(write_plan(tmp_path))
    comparison = Comparison(plan, tmp_path / "out")
    for job, _ in comparison.survey():
        job.directory.mkdir(parents=True)
        (job.directory / "identity.json").write_text(json.dumps(job.identity))
        (job.directory / "record.json").write_text("{}")
    changed = load_plan(write_plan(tmp_path, methods={**PLAN["methods"], "skd": {"policy": {"gate": {"k": 6}}}}))
    stale = [job.name for job, state in _states(changed, tmp_path) if state.startswith("stale")]
    assert stale == ["steps / default / skd / seed 0", "steps / default / skd / seed 1"]


def test_a_default_that_came_later_makes_nothing_stale(tmp_path):
    plan = load_plan(write_plan(tmp_path))
    for job, _ in list(_states(plan, tmp_path)):
        identity = json.loads(json.dumps(job.identity))
        del identity["config"]["train"]["eps"]
        job.directory.mkdir(parents=True)
        (job.directory / "identity.json").write_text(json.dumps(identity))
    assert {state for _, state in _states(plan, tmp_path)} == {"started"}


def test_a_default_of_a_stage_that_came_later_makes_nothing_stale(done):
    path, out = done
    saved = {file: file.read_text() for file in out.rglob("identity.json")}
    try:
        for file, text in saved.items():
            file.write_text(json.dumps(_without(json.loads(text), "eps")))
        assert {state for _, state in Comparison(load_plan(path), out).survey()} == {"finished"}
    finally:
        for file, text in saved.items():
            file.write_text(text)


def _without(values, key):
    return {k: _without(v, key) if isinstance(v, dict) else v for k, v in values.items() if k != key}


def test_a_changed_item_is_named_by_its_key(done, tmp_path):
    path, out = done
    changed = json.loads(path.read_text())
    changed["evaluation"]["seed"] = 77
    (tmp_path / "plan.yaml").write_text(json.dumps(changed))
    states = {state for _, state in Comparison(load_plan(tmp_path / "plan.yaml"), out).survey()}
    assert "stale: items.0.seed was 5, is 77" in states


def _states(plan, tmp_path):
    """Of the cells alone: the made-up records above say nothing of models."""
    from skd.compare.cells import Cell, cell_job
    from skd.compare.jobs import state_of
    from skd.compare.stages import Stages

    for method in plan.config.methods:
        for seed in plan.config.seeds:
            cell = Cell("steps", "default", method, seed)
            job = cell_job(plan, Stages(plan, tmp_path / "out"), cell, plan.items("default"))
            yield job, str(state_of(job))


def test_what_is_wrong_with_any_setting_is_said_before_the_first_cell(tmp_path):
    missing = {"config": {"data.train": {"kind": "file", "path": str(tmp_path / "none.json")}}}
    path = write_plan(tmp_path, settings={"good": {}, "bad": missing})
    with pytest.raises(SkdError, match=r"none\.json"):
        compare(path)
    assert not list(tmp_path.rglob("identity.json"))

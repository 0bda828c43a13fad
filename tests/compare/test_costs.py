"""Costs are sums over the logs of a run; curves carry what had been spent when a score was measured."""

from __future__ import annotations

import json

import pytest

from skd.compare.costs import Point, costs_of, curve_of, teacher_parameters, uses_teacher
from skd.compare.plan import load_plan
from skd.config import config_of
from tests.compare.plans import PLAN, write_plan


def step(number, tokens, wasted=0):
    return {"step": number, "tokens": tokens, "wasted": wasted, "seconds": 2.0, "seconds_cpu": 1.5}


@pytest.fixture
def run(tmp_path):
    rows = [
        {"step": 0, "validation": {"loss": 1.0, "score": 0.25}},
        step(1, 10, wasted=3),
        step(2, 20, wasted=1),
        {"step": 2, "validation": {"loss": 1.0, "score": 0.5}},
        {"step": 2, "validation": {"loss": 1.0, "score": None}},
    ]
    trained = [{"step": 1, "sample_ids": [0, 1]}, {"step": 2, "sample_ids": [1, 1]}]
    for name, lines in (("metrics", rows), ("trained", trained)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def config(**changes):
    return config_of({key: value for key, value in PLAN["base"].items() if key != "policy"} | changes)


def test_sums_over_the_steps(run):
    costs = costs_of(run, config(method="skd"), {0: 5, 1: 7})
    assert (costs.steps, costs.tokens, costs.seconds, costs.cpu_seconds) == (2, 30, 4.0, 3.0)
    # Prompts 5 + 7 + 7 + 7, responses 30, thrown away 4.
    assert costs.teacher_flops == 2.0 * teacher_parameters(config()) * (26 + 30 + 4)


def test_the_teachers_size_is_that_of_its_weights():
    from skd.models import load_pair

    pair = load_pair("builtin:number_words/teacher", "builtin:number_words/student")
    assert teacher_parameters(config()) == pair.required_teacher.num_parameters()


@pytest.mark.parametrize(
    ("method", "looks"),
    [("sft", False), ("seq_kd", True), ("supervised_kd", True), ("on_policy", True), ("skd", True), ("ipd", True)],
)
def test_who_needs_the_teacher(run, method, looks):
    assert uses_teacher(config(method=method)) is looks
    assert (costs_of(run, config(method=method), {0: 5, 1: 7}).teacher_flops > 0) is looks


def test_curves_carry_what_was_spent(run):
    assert curve_of(run) == [Point(0, 0, 0.0, 0.0, 0.25), Point(2, 30, 4.0, 3.0, 0.5)]


def finished(comparison, costs):
    """Made-up equal-steps cells with these costs."""
    from skd.compare.cells import Cell, cell_job
    from skd.compare.run import Finished

    plan = comparison.plan
    for method, cost in costs.items():
        job = cell_job(plan, comparison.stages, Cell("steps", "default", method, 0), plan.items("default"))
        record = {"steps": 60, "seconds": cost, "teacher_flops": cost}
        comparison.cells.setdefault("steps", {})["default", method] = [Finished(job, record)] * 2


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"like": "skd"}, {"sft": 180, "mid": 120}),
        ({"like": "skd", "methods": ["mid"]}, {"mid": 120}),
        ({"amount": 5.0}, {"sft": 30, "mid": 20, "skd": 10}),
        ({"like": "sft"}, {"mid": 40, "skd": 20}),
    ],
)
def test_equal_seconds_are_as_many_steps_as_cost_the_same(tmp_path, budget, steps):
    from skd.compare.run import Comparison

    methods = {"sft": {"method": "sft"}, "mid": {"method": "supervised_kd"}, "skd": {}}
    plan = load_plan(write_plan(tmp_path, methods=methods, budgets=[{"kind": "seconds", **budget}]))
    comparison = Comparison(plan, tmp_path / "out")
    finished(comparison, {"sft": 10.0, "mid": 15.0, "skd": 30.0})
    cells = list(comparison._equal(plan.config.budgets[0]))
    assert {cell.method: cell.changes["train.max_steps"] for cell in cells} == steps
    assert {cell.seed for cell in cells} == set(plan.config.seeds)


def test_a_method_that_costs_the_same_keeps_its_cells_and_one_without_a_teacher_has_none(tmp_path):
    from skd.compare.run import Comparison

    methods = {"sft": {"method": "sft"}, "mid": {"method": "supervised_kd"}, "skd": {}}
    plan = load_plan(write_plan(tmp_path, methods=methods, budgets=[{"kind": "teacher_flops", "like": "skd"}]))
    comparison = Comparison(plan, tmp_path / "out")
    finished(comparison, {"sft": 0.0, "mid": 28.0, "skd": 30.0})
    assert list(comparison._equal(plan.config.budgets[0])) == []
    assert set(comparison.cells["teacher_flops"]) == {("default", "mid"), ("default", "skd")}

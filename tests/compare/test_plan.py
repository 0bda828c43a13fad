"""A plan is read as a whole; everything that is wrong with it is said at once, with its line."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

from skd.compare.costs import teacher_parameters
from skd.compare.plan import load_plan
from skd.compare.run import Comparison
from skd.compare.stages import Stages
from skd.config import config_of
from skd.errors import ConfigError
from tests.compare.plans import PLAN, write_plan


def problems(path):
    with pytest.raises(ConfigError) as raised:
        load_plan(path)
    return [str(problem) for problem in raised.value.problems]


def line_of(path, text):
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_a_variant_changes_the_base_and_leaves_the_rest(tmp_path):
    plan = load_plan(write_plan(tmp_path, settings={"few": {"config": {"data.train.size": 5}}, "all": {}}))
    skd = plan.cell("few", "skd")
    assert skd.policy.gate.k == 5
    assert skd.data.train[0].size == 5
    assert plan.cell("all", "skd").data.train[0].size == 8
    assert skd.train == config_of(PLAN["base"]).train


def test_a_variant_with_a_method_of_its_own_drops_the_policy_of_the_base(tmp_path):
    plan = load_plan(write_plan(tmp_path, reference="skd", methods={"skd": {}, "on_policy": {"method": "on_policy"}}))
    assert plan.cell("default", "skd").policy.kind == "interleaved"
    assert plan.cell("default", "on_policy").policy.kind == "student"


def test_later_changes_go_over_earlier_ones(tmp_path):
    plan = load_plan(
        write_plan(
            tmp_path,
            settings={"a": {"config": {"train.lr": 0.1}}},
            methods={"sft": {"method": "sft", "train": {"lr": 0.2}}, "skd": {}},
        )
    )
    assert plan.cell("a", "skd").train.lr == 0.1
    assert plan.cell("a", "sft").train.lr == 0.2
    assert plan.cell("a", "sft", ((), {"train.lr": 0.3})).train.lr == 0.3


def test_the_base_may_be_a_file_beside_the_plan(tmp_path):
    (tmp_path / "base.yaml").write_text("student: s\nmethod: sft\ndata: {train: rows.json}\n")
    plan = load_plan(
        write_plan(tmp_path, base="base.yaml", methods={"sft": {}, "more": {"train.epochs": 9}}, curve=None)
    )
    assert plan.cell("default", "more").train.epochs == 9
    (tmp_path / "base.yaml").write_text("student: s\ndata: {train: rows.json}\nmethod: sftt\n")
    path = tmp_path / "plan.yaml"
    assert [problem for problem in problems(path) if f"{tmp_path / 'base.yaml'}:3: method is" in problem]


@pytest.mark.parametrize(
    ("changes", "line", "said"),
    [
        ({"refrence": "sft"}, "refrence", "refrence is an unknown key; did you mean reference?"),
        ({"reference": "skdd"}, "skdd", "reference is 'skdd', no method of this plan; did you mean skd?"),
        ({"seeds": [1, 1]}, '"seeds"', "seeds is a list, expected a list in which each stands once"),
        ({"seeds": []}, '"seeds"', "seeds is a list, expected a list that is not empty"),
        ({"methods": {"sft": {}}}, '"methods"', "methods has fewer than two; add another one"),
        ({"methods": {"sft": {}, "a/b": {}}}, "a/b", "expected a name of letters, digits, _, - and ."),
        ({"methods": {"sft": {}, "x": {"train": {"lrr": 1}}}}, "lrr", "train.lrr is an unknown key; did you mean"),
        ({"methods": {"sft": {}, "x": {"train.lr": "fast"}}}, "fast", 'train.lr is the text "fast", expected a number'),
        ({"evaluation": {"task": "number_word"}}, '"evaluation"', "write number_words"),
        ({"evaluation": {"task": "number_words", "siz": 3}}, '"siz"', "did you mean size?"),
        ({"evaluation": [{"task": "number_words"}] * 2}, '"evaluation"', "evaluation names a task twice"),
        ({"budgets": [{"kind": "seconds"}]}, '"budgets"', "and one of them is needed; write one of the two"),
        ({"budgets": [{"kind": "seconds", "like": "x"}]}, '"like"', "budgets.0.like is 'x', no method of this plan"),
        ({"budgets": [{"kind": "seconds", "amount": n} for n in (1, 2)]}, '"budgets"', "budgets has a kind twice"),
        (
            {"budgets": [{"kind": "seconds", "amount": 1, "methods": ["sft"]}]},
            '"budgets"',
            "budgets.0 has one method, and nothing to compare it with",
        ),
        ({"settings": {"a": {"config": {"student": "stage:x"}}}}, '"a"', "student is stage:x, no stage before it"),
        ({"stages": {"s": {"seed": 1}}}, '"s"', "stages.s.config and fresh say how the model is made"),
        ({"stages": {"s": {"fresh": "x", "words": "sum"}}}, '"words"', 'stages.s.words is the text "sum", expected'),
        (
            {"stages": {"s": {"config": {"method": "sft"}, "words": "sums"}}},
            '"s"',
            "stages.s.words is the vocabulary of a fresh model",
        ),
        ({"base": 3}, '"base"', "base is 3, expected a run config or the path of one"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, changes, line, said):
    path = write_plan(tmp_path, **changes)
    found = problems(path)
    mine = [problem for problem in found if said in problem]
    assert mine, found
    place = int(mine[0].split(": ")[0].rpartition(":")[2])
    # A problem of a whole section stands at its key.
    assert 0 <= place - line_of(path, line) <= 1


def test_a_stage_may_only_build_on_earlier_ones(tmp_path):
    train = {"student": "stage:second", "method": "sft", "data": {"train": "rows.json"}}
    stages = {"first": {"config": train}, "second": {"fresh": "builtin:number_words/student"}}
    assert any(
        "student is stage:second, no stage before it" in p for p in problems(write_plan(tmp_path, stages=stages))
    )
    load_plan(write_plan(tmp_path, stages=dict(reversed(stages.items()))))


def test_all_problems_come_at_once_and_each_once(tmp_path):
    path = write_plan(tmp_path, reference="x", methods={"sft": {"train.lr": "a"}, "b": {"train.lr": "c"}})
    assert len(problems(path)) == 3


def test_a_file_that_is_not_there(tmp_path):
    assert "does not exist" in problems(tmp_path / "none.yaml")[0]


ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "compare").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_compare_methods_and_nothing_else(path):
    plan = load_plan(path)
    assert len(plan.config.seeds) >= 3
    for setting in plan.config.settings:
        cells = [plan.cell(setting, method) for method in plan.config.methods]
        own = {"method": True, "policy": True, "objective": True, "sampling": {"teacher"}}
        assert len({cell.model_dump_json(exclude=own) for cell in cells}) == 1
        assert len({cell.model_dump_json(include=set(own)) for cell in cells}) == len(cells)
        trained = {source.split for cell in cells for source in cell.data.train}
        assert trained == {"train"}
        assert {items.split for items in plan.items(setting)} == {"test"}


def test_number_words_has_ten_methods_and_two_students():
    plan = load_plan(ROOT / "recipes" / "compare" / "number_words.yaml")
    assert len(plan.config.methods) >= 10
    assert {plan.cell(setting, "sft").student.path for setting in plan.config.settings} == {
        "stage:pretrained",
        "builtin:number_words/student",
    }


def test_changes_of_the_command_line_go_into_the_plan(tmp_path):
    plan = load_plan(write_plan(tmp_path), ["seeds=[7]", "base.train.max_steps=9", "settings.new.config.train.lr=0.5"])
    assert plan.config.seeds == (7,)
    assert (plan.cell("new", "sft").train.max_steps, plan.cell("new", "sft").train.lr) == (9, 0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seeds", "--override seeds: is no change of the plan; write section.key=value"),
        ("base..x=1", "is no change of the plan"),
        ("reference.x=1", "--override reference.x: reference has no keys of its own"),
        ("base.train.lr=fast", '--override base.train.lr: train.lr is the text "fast"'),
        ("bse.train.lr=1", "bse is an unknown key; did you mean base?"),
    ],
)
def test_wrong_changes_are_said_with_what_was_written(tmp_path, change, said):
    with pytest.raises(ConfigError) as raised:
        load_plan(write_plan(tmp_path), [change])
    assert said in str(raised.value)


def test_each_of_several_teachers_may_be_a_stage_and_is_measured(tmp_path):
    base = {
        **PLAN["base"],
        "teacher": {"route": "domain", "by": {"a": PLAN["base"]["teacher"], "b.c/d": "stage:blank"}},
        "data": {"train": "rows.jsonl"},
    }
    stages = {"blank": {"fresh": "builtin:number_words/student", "seed": 1}}
    plan = load_plan(write_plan(tmp_path, base=base, stages=stages, curve=None))
    resolved = Stages(plan, tmp_path / "out").resolved(plan.cell("default", "skd"))
    made = str(tmp_path / "out" / "stages" / "blank" / "model")
    assert [one.path for one in resolved.teacher.by.values()] == [PLAN["base"]["teacher"], made]
    assert teacher_parameters(resolved) is None
    jobs = list(Comparison(plan, tmp_path / "out")._model_jobs())
    assert [job.name for job in jobs] == [
        "default / start",
        "default / teacher.by.a",
        "default / teacher.by.b.c/d",
    ]
    assert {job.directory.parent for job in jobs} == {tmp_path / "out" / "models" / "default"}


def test_a_curve_without_validations_is_refused(tmp_path):
    base = deepcopy(PLAN["base"])
    del base["data"]["validation"]
    with pytest.raises(ConfigError, match=r"SKD-C10.*curve is measured at validations.*add data.validation") as error:
        load_plan(write_plan(tmp_path, base=base))
    assert len(error.value.problems) == 1
    load_plan(write_plan(tmp_path, base=base, curve=None))

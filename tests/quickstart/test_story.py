"""The quickstart tells its whole story, with real runs of a few steps; and a student really learns."""

from __future__ import annotations

import json

import pytest

import skd
from skd.config import idle_problems
from skd.errors import ResourceError
from skd.evaluate.run import evaluate
from skd.quickstart import story
from skd.quickstart.story import METHODS, PLANS, Plan, config_for


def test_the_story_ends_with_results_and_a_page(tmp_path, monkeypatch, capsys):
    plan = Plan(num_prompts=8, steps=2, lr=1e-3, k=3, student_temperature=1.5, batch_size=4)
    monkeypatch.setitem(story.PLANS, "number_words", plan)
    monkeypatch.setattr(story, "NUM_TEST", 40)
    monkeypatch.setattr(story, "NUM_CURVE", 10)
    page = story.run(tmp_path / "out", "number_words")
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["n_test"] == 40
    assert results["seconds"] > 0
    assert set(results["scores"]) == {"teacher", "start", *METHODS}
    assert all(0 <= score <= 1 for score in results["scores"].values())
    assert results["scores"]["teacher"] >= 0.9
    assert 0 < results["replaced_share"] < 1
    printed = capsys.readouterr().out
    for text in ("SKD's gate (top 3) let the teacher replace", "results.json", "What to try next"):
        assert text in printed
    html = page.read_text(encoding="utf-8")
    for label in ("SKD", "on-policy KD", "supervised KD", "SFT (control)"):
        assert label in html


def test_every_method_of_the_quickstart_shares_all_but_policy_and_objective():
    plan = PLANS["number_words"]
    configs = [config_for("number_words", plan, method, f"runs/{method}") for method in METHODS]
    own = {"method": True, "policy": True, "objective": True, "output": True, "sampling": True}
    assert len({config.model_dump_json(exclude=own) for config in configs}) == 1
    assert len({config.sampling for config in configs if config.policy.kind != "data_set"}) == 1
    assert not any(idle_problems(config) for config in configs)


def test_a_student_learns_in_a_few_steps(tmp_path):
    plan = Plan(num_prompts=100, steps=60, lr=2e-3, k=25, student_temperature=1.5)
    config = config_for("number_words", plan, "skd", tmp_path / "run")
    before = evaluate("builtin:number_words/student", "number_words", size=300, split="validation")
    result = skd.train(config, overrides={"train.validate_every": None}, display=False)
    after = evaluate(result.student_dir, "number_words", size=300, split="validation")
    assert after.score > before.score + 0.05


def test_an_earlier_quickstart_is_moved_aside(tmp_path):
    (tmp_path / "skd").mkdir()
    (tmp_path / "results.json").write_text("first")
    story._make_ready(tmp_path)
    (tmp_path / "results.json").write_text("second")
    story._make_ready(tmp_path)
    assert (tmp_path / "earlier-1" / "results.json").read_text() == "first"
    assert (tmp_path / "earlier-1" / "skd").is_dir()
    assert (tmp_path / "earlier-2" / "results.json").read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier-1", "earlier-2"]


def test_a_place_that_cannot_hold_the_results_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot be written to .*; name another directory with --out"):
        story.run(tmp_path / "file")

"""A trace of some steps."""

import json

import pytest

from tests.train.conftest import run_train


@pytest.mark.parametrize("steps", [2, 50])
def test_a_trace_holds_the_operations_of_the_steps_asked_for_or_of_all(settings, tmp_path, steps):
    run_train(settings(max_steps=3, validate_every=None, save_every=None), profile=steps)
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    updates = [event for event in events if event.get("name", "").startswith("Optimizer.step#")]
    assert len(updates) == min(steps, 3)


def test_without_a_trace_none_is_written(settings, tmp_path):
    run_train(settings(max_steps=1, validate_every=None, save_every=None))
    assert not list((tmp_path / "run").glob("*trace*"))

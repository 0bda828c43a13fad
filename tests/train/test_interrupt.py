"""A signal that arrives while responses are sampled is answered there, and nothing of the run changes by it."""

import json
import os
import signal
from pathlib import Path

import pytest

from skd import faults
from skd.sampling import packed
from skd.train.directory import latest_whole
from tests.train.conftest import end_state, run_train


def timeless(run_dir):
    rows = [json.loads(line) for line in (Path(run_dir) / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if not key.startswith(("seconds", "tokens_per", "peak_mb"))} for row in rows]


def at_round(index, act):
    """A hook that acts at one round of the sampler, counted from 0 over the run."""
    left = [index]

    def hook(name):
        if name == "round" and not left[0]:
            act()
        left[0] -= name == "round"

    return hook


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.fixture
def whole(settings, tmp_path, known):
    """Output directory and fault points of a run that nothing interrupts."""

    def run(method):
        if method not in known:
            config = {**settings(method=method), "output": str(tmp_path / "whole")}
            points = []
            with faults.hooked(points.append):
                run_train(config)
            known[method] = config["output"], points
        return known[method]

    return run


@pytest.mark.parametrize(("method", "number"), [("skd", signal.SIGTERM), ("on_policy", signal.SIGINT)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
def test_a_signal_between_two_rounds_changes_nothing(settings, whole, method, number, share):
    expected, points = whole(method)
    rounds = [i for i, point in enumerate(points) if point == "round"]
    index = rounds[int(share * (len(rounds) - 1))]
    hook = at_round(rounds.index(index), lambda: os.kill(os.getpid(), number))
    config = settings(method=method)
    reached = []
    with faults.hooked(lambda name: (reached.append(name), hook(name))), pytest.raises(SystemExit) as caught:
        run_train(config)
    assert caught.value.code == 128 + number
    assert reached[: index + 1] == points[: index + 1]
    assert not set(reached[index + 1 :]) & {"round", "rollout", "step", "validate"}
    newest, _ = latest_whole(Path(config["output"]))
    assert newest is not None
    assert newest.name == f"step-{points[:index].count('step')}"

    run_train(config, resume="must")
    assert end_state(config["output"], 6) == end_state(expected, 6)
    assert timeless(config["output"]) == timeless(expected)


def test_a_best_step_whose_validation_was_interrupted_is_named_all_the_same(settings, whole):
    """The checkpoint was saved before the validation that made it the best one."""
    expected, points = whole("skd")
    best = json.loads((Path(expected) / "best.json").read_text())
    validations = [i for i, point in enumerate(points) if point == "validate"]
    hook = at_round(points[: validations[1]].count("round"), lambda: os.kill(os.getpid(), signal.SIGTERM))
    config = settings()
    with faults.hooked(hook), pytest.raises(SystemExit):
        run_train(config)
    run_train(config, resume="must")
    assert json.loads((Path(config["output"]) / "best.json").read_text()) == best


def test_the_last_validation_is_finished_and_the_run_complete(settings):
    config = settings(max_steps=2)
    validations = [0]

    def hook(name):
        validations[0] += name == "validate"
        if name == "validate" and validations[0] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with faults.hooked(hook):
        result = run_train(config)
    assert result.step == 2
    assert result.student_dir.is_dir()


@pytest.mark.skipif(not packed.worth_packing([2**40]), reason="this torch has no oneDNN")
def test_the_copies_of_a_teacher_that_a_resumed_run_lacks_change_nothing(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_SMALL_WEIGHT", 1)
    monkeypatch.setattr(packed, "_SMALL_MODEL", 1)
    made, make = [], packed.packed
    monkeypatch.setattr(packed, "packed", lambda weight: (made.append(weight.shape), make(weight))[1])
    config = settings()
    whole = {**config, "output": str(tmp_path / "whole")}
    run_train(whole)
    # The head and two products of each layer: shapes that only the teacher has.
    assert made.count((64, 32)) == 5, "once for all rollouts and validations"
    assert made[-1] != (64, 32)
    with faults.hooked(at_round(9, lambda: os.kill(os.getpid(), signal.SIGTERM))), pytest.raises(SystemExit):
        run_train(config)
    run_train(config, resume="must")
    assert made.count((64, 32)) == 15
    assert end_state(config["output"], 6) == end_state(whole["output"], 6)

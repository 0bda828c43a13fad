"""A disk that fails for a moment costs nothing, one that fails for good only the steps since the last save."""

import errno
import json
import os
from pathlib import Path

import pytest

from skd import faults
from skd.errors import CheckpointError, Problem, ResourceError
from skd.train import retry
from skd.train.directory import latest_whole
from tests.train.conftest import end_state, run_train


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    return slept


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.fixture
def whole(settings, tmp_path, known):
    """The end of a run whose disk never fails."""
    if not known:
        config = {**settings(), "output": str(tmp_path / "whole")}
        run_train(config)
        known.update(end_state(config["output"], 6), best=best_of(config))
    return known


def best_of(config):
    return (Path(config["output"]) / "best.json").read_text()


def failing(where, first, last, number=errno.EIO):
    """A hook that fails the point ``where`` from its ``first`` to its ``last`` time, counted from 1."""
    seen = [0]

    def hook(name):
        seen[0] += name == where
        if name == where and first <= seen[0] <= last:
            raise OSError(number, os.strerror(number))

    return faults.hooked(hook)


@pytest.mark.parametrize("where", ["save.open", "save.optim", "save.rename", "save.verify", "save.prune"])
def test_three_failures_are_survived(settings, whole, waits, where):
    config = settings()
    with failing(where, 2, 4):
        run_train(config)
    assert len(waits) == 3
    assert {**end_state(config["output"], 6), "best": best_of(config)} == whole


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, "SKD-K04"), (errno.ENOSPC, "SKD-K03")])
def test_the_fourth_stops_the_run_with_the_old_one_whole(settings, whole, waits, number, code):
    config = settings()
    with failing("save.manifest", 2, 5, number), pytest.raises(ResourceError, match=r"\d+ bytes free") as caught:
        run_train(config)
    assert caught.value.exit_code == 8
    assert caught.value.problems[0].code == code
    assert waits == list(retry.RETRY_SECONDS)
    newest, refused = latest_whole(Path(config["output"]))
    assert newest is not None
    assert newest.name == "step-2"
    assert refused == []
    run_train(config, resume="must")
    assert {**end_state(config["output"], 6), "best": best_of(config)} == whole


def test_attempts_are_said(waits):
    said, left = [], [1]

    def save():
        left[0] -= 1
        if left[0] >= 0:
            raise ResourceError(Problem("SKD-K03", "runs/x", "the disk is full", "free space"))

    retry.persistently(save, said.append)
    assert said == ["error[SKD-K03] runs/x: the disk is full; free space; trying again in 1 s"]


def test_other_errors_are_not_tried_again(waits):
    def save():
        raise CheckpointError(Problem("SKD-K05", "runs/x", "broken", "check the disk"))

    with pytest.raises(CheckpointError):
        retry.persistently(save, print)
    assert waits == []


def test_a_log_on_a_full_disk_stops_no_run(settings, monkeypatch):
    config = settings(max_steps=2)

    def full(self, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("skd.train.log.JsonLines.append", full)
    result = run_train(config)
    assert result.step == 2
    assert json.loads((result.run_dir / "checkpoints" / "step-2" / "state.json").read_text())["step"] == 2

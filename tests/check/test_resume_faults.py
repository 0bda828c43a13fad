"""What a run directory already holds: other settings, rows or models are found before a weight is read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.cli import main
from tests.check.bench import GOOD_ROWS, Bench, row
from tests.check.conftest import Outcome
from tests.data.hub_stand_in import COMMIT, stand_in
from tests.tiny import save_tiny

MOVED = "abcdef" + "0" * 34


@pytest.fixture
def trained(bench: Bench) -> Bench:
    assert main(["train", "run.yaml", "train.trackers=[]"]) == 0
    return bench


def test_a_run_that_is_there_is_told_of(trained: Bench, look: Callable[..., Outcome]) -> None:
    outcome = look("run.yaml", "train.trackers=[]")
    assert outcome.exit == 0, outcome.out
    assert "resume       ok       step-2 of 2 steps is there" in outcome.out


def test_other_settings_and_other_rows_are_found_at_once(trained: Bench, look: Callable[..., Outcome]) -> None:
    trained.rows(*GOOD_ROWS[1:], row("t9 t9"))
    outcome = look("run.yaml", "train.lr=0.5", "train.batch_size=2", "train.keep=9")
    assert outcome.exit == 5
    assert "error[SKD-C15] runs/x/checkpoints/step-2: the checkpoint is of a run with other settings:" in outcome.out
    assert "train.batch_size  4           2" in outcome.out
    assert "train.lr" in outcome.out
    assert "train.keep" not in outcome.out
    assert "with --allow train.lr (train.batch_size cannot change within a run)" in outcome.out
    assert "error[SKD-D13] runs/x/checkpoints/step-2: the training rows are not those" in outcome.out


def test_a_flag_allows_what_it_names(trained: Bench, look: Callable[..., Outcome]) -> None:
    assert look("run.yaml", "train.trackers=[]", "train.lr=0.5", "--allow", "train.lr").exit == 0
    assert main(["train", "run.yaml", "train.trackers=[]", "train.lr=0.5"]) == 5
    assert main(["train", "run.yaml", "train.trackers=[]", "train.lr=0.5", "--allow", "train.lr"]) == 0


def test_a_flag_that_names_no_key_is_refused(bench: Bench, look: Callable[..., Outcome]) -> None:
    outcome = look("run.yaml", "--allow", "train.rate")
    assert outcome.exit == 2
    assert "error[SKD-C05] --allow train.rate: is no key of a config; did you mean train." in outcome.out


def test_a_broken_newest_checkpoint_gives_way_to_the_one_before(trained: Bench, look: Callable[..., Outcome]) -> None:
    checkpoints = trained.root / "runs/x/checkpoints"
    broken = shutil.copytree(checkpoints / "step-2", checkpoints / "step-4")
    (broken / "state.json").write_text("{}")
    assert "step-2 of 2 steps is there" in look("run.yaml", "train.trackers=[]").out


def large(place: Path, seed: int) -> Path:
    """A model whose weights are too large to be hashed whole; any two have files of the same sizes and headers."""
    shutil.rmtree(place)
    save_tiny(place, "llama", seed=seed, hidden=160, max_positions=64)
    assert (place / "model.safetensors").stat().st_size > 1 << 20
    return place


def test_another_model_in_the_same_place_is_refused_before_its_weights_are_loaded(
    bench: Bench, look: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    large(bench.teacher, seed=1)
    assert main(["train", "run.yaml", "train.trackers=[]"]) == 0
    size = (bench.teacher / "model.safetensors").stat().st_size
    large(bench.teacher, seed=9)
    assert (bench.teacher / "model.safetensors").stat().st_size == size
    outcome = look("run.yaml", "train.trackers=[]", "train.max_steps=3")
    assert outcome.exit == 5, outcome.out
    (message,) = outcome.messages
    assert (message["code"], message["place"]) == ("SKD-M21", "runs/x/checkpoints/step-2")
    assert "the models are not those the run was started with: teacher.digest was " in message["text"]
    capsys.readouterr()
    assert main(["train", "run.yaml", "train.trackers=[]", "train.max_steps=3"]) == 5
    assert "error[SKD-M21] " in capsys.readouterr().err


def test_the_same_model_may_move(trained: Bench, look: Callable[..., Outcome]) -> None:
    shutil.copytree(trained.teacher, trained.root / "moved", copy_function=shutil.copyfile)
    shutil.rmtree(trained.teacher)
    assert look("run.yaml", "train.trackers=[]", "teacher=moved").exit == 0


def run(endpoint: str, home: Path, *arguments: str) -> tuple[int, str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "skd", "train", "run.yaml", "student=owner/name", "train.trackers=[]", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_a_branch_that_moved_is_not_followed_and_another_commit_is_refused(bench: Bench, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with stand_in({path.name: path.read_bytes() for path in bench.student.iterdir()}, kind="models") as endpoint:
        code, output = run(endpoint, home)
    assert code == 0, output
    state = json.loads((bench.root / "runs/x/checkpoints/step-2/state.json").read_text())
    assert state["provenance"]["student"]["revision"] == COMMIT

    shutil.rmtree(bench.student)
    save_tiny(bench.student, "llama", seed=5, hidden=16, max_positions=64)
    moved = {path.name: path.read_bytes() for path in bench.student.iterdir()}
    with stand_in(moved, kind="models", commit=MOVED) as endpoint:
        code, output = run(endpoint, home, "train.max_steps=3")
        assert code == 0, output
        state = json.loads((bench.root / "runs/x/checkpoints/step-3/state.json").read_text())
        assert state["provenance"]["student"]["revision"] == COMMIT

        code, output = run(endpoint, home, "train.max_steps=4", f"student.revision={MOVED}")
        assert code == 5, output
        assert f"student.revision was {COMMIT} and is {MOVED}" in output
        assert "[SKD-M21]" in output
        assert not list(home.rglob(f"{MOVED}/model.safetensors"))

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import skd
from skd import faults
from skd.check import Checked
from skd.errors import CheckpointError
from skd.train import TrainResult, train
from tests.train.conftest import ROWS, end_state, open_pair, run_train


def at(name, count, action):
    """A hook that acts when the point ``name`` is reached for the ``count``-th time."""
    seen = [0]

    def hook(reached):
        if reached == name:
            seen[0] += 1
            if seen[0] == count:
                action()

    return faults.hooked(hook)


def in_child(config, name, count, action):
    """Run in a forked process that is to die at a fault point; returns its exit code."""
    child = os.fork()
    if child == 0:
        with at(name, count, action):
            run_train(config)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def known_ends():
    return {}


@pytest.fixture
def uninterrupted(settings, tmp_path, known_ends):
    """The end state of a run that nothing interrupted; each configuration runs once."""

    def run(**keys):
        if str(keys) not in known_ends:
            config = {**settings(**keys), "output": str(tmp_path / "uninterrupted")}
            run_train(config)
            known_ends[str(keys)] = end_state(config["output"], 6)
        return known_ends[str(keys)]

    return run


def test_a_run_leaves_what_it_promises(settings):
    config = settings()
    result = run_train(config)
    run_dir = Path(config["output"])
    assert result == TrainResult(run_dir, 6, run_dir / "metrics.jsonl", run_dir / "student")
    rows = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation" in row] == [0, 3, 6]
    assert rows[1]["lr"] == pytest.approx(0.01)
    trained = [json.loads(line) for line in (run_dir / "trained.jsonl").read_text().splitlines()]
    ids = [sample for row in trained for sample in row["sample_ids"]]
    assert sorted(ids[:10]) == sorted(ids[10:20]) == list(range(10))
    assert [json.loads(line)["step"] for line in (run_dir / "samples.jsonl").read_text().splitlines()] == [2, 4, 6]
    best = json.loads((run_dir / "best.json").read_text())
    losses = {row["step"]: row["validation"]["loss"] for row in rows if "validation" in row}
    assert best["validation_loss"] == min(losses[3], losses[6])
    assert (run_dir / "checkpoints" / best["checkpoint"]).is_dir()
    assert "method" in (run_dir / "student" / "README.md").read_text()


def test_exported_student_is_the_trained_one(settings):
    config = settings(max_steps=1, validate_every=None)
    pair = open_pair(config)
    before = {name: parameter.detach().clone() for name, parameter in pair.student.named_parameters()}
    result = run_train(config, pair=pair)
    exported = dict(AutoModelForCausalLM.from_pretrained(result.student_dir).named_parameters())
    for name, parameter in pair.student.named_parameters():
        assert torch.equal(exported[name], parameter)
        assert not torch.equal(before[name], parameter)


LOGITS = """
import sys, torch, transformers
assert not any(name.startswith("skd") for name in sys.modules)
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=False)
print(model(torch.arange(2, 9)[None]).logits.double().flatten().tolist())
"""


def test_the_export_has_the_same_logits_in_a_process_without_skd(settings):
    config = settings(max_steps=1, validate_every=None)
    pair = open_pair(config)
    result = run_train(config, pair=pair)
    command = [sys.executable, "-c", LOGITS, str(result.student_dir)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with torch.no_grad():
        logits = pair.student(torch.arange(2, 9)[None]).logits
    assert json.loads(printed) == logits.double().flatten().tolist()


def test_token_view_holds_what_both_models_thought(settings):
    config = settings(max_steps=1)
    run_train(config)
    view = json.loads((Path(config["output"]) / "tokens" / "step-1.json").read_text())
    assert view["step"] == 1
    assert len(view["responses"]) == 4
    for response in view["responses"]:
        length = len(response["ids"])
        for key in (
            "pieces",
            "authors",
            "divergence",
            "student_top",
            "teacher_top",
            "student_top_ids",
            "teacher_top_ids",
        ):
            assert len(response[key]) == length
        for tops in (response["student_top"], response["teacher_top"]):
            assert all(len(top) == 5 for top in tops)
            assert all(
                probabilities == sorted(probabilities, reverse=True)
                for probabilities in [[p for _, p in top] for top in tops]
            )
        assert all(value >= 0 for value in response["divergence"])
        assert all(piece.strip() for piece in response["pieces"])


@pytest.mark.parametrize("method", ["skd", "on_policy", "sft"])
def test_stop_and_resume_is_bit_for_bit_the_uninterrupted_run(settings, uninterrupted, method):
    expected = uninterrupted() if method == "skd" else uninterrupted(method=method)
    config = settings(method=method)
    with at("step", 3, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit) as caught:
        run_train(config)
    assert caught.value.code == 128 + signal.SIGTERM
    assert (Path(config["output"]) / "checkpoints" / "step-3").is_dir()
    run_train(config, resume="must")
    assert end_state(config["output"], 6) == expected


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("rollout", 5),
        ("backward", 3),
        ("step", 4),
        ("save.open", 2),
        ("save.model", 1),
        ("save.optim", 2),
        ("save.manifest", 3),
        ("save.rename", 2),
        ("save.prune", 2),
    ],
)
def test_a_kill_anywhere_changes_nothing(settings, uninterrupted, where, count):
    expected = uninterrupted()
    config = settings()
    assert in_child(config, where, count, lambda: os.kill(os.getpid(), signal.SIGKILL)) == -signal.SIGKILL
    run_train(config)
    assert end_state(config["output"], 6) == expected


def test_dropout_matters_in_these_runs(settings, uninterrupted):
    assert uninterrupted() != uninterrupted(student="steady")


def test_damaged_newest_checkpoint_falls_back_to_an_older_one(settings, uninterrupted, capsys):
    expected = uninterrupted()
    config = settings()
    run_train(config)
    run_dir = Path(config["output"])
    newest = run_dir / "checkpoints" / "step-6" / "student.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    train(config, pair=open_pair(config), prompts=ROWS, validation=ROWS)
    text = capsys.readouterr().err
    assert "step-6 was refused: student.safetensors has" in text
    assert "resuming from step-" in text
    assert end_state(run_dir, 6) == expected


def test_finished_run_says_complete_and_rewrites_nothing(settings, capsys):
    config = settings(max_steps=2)
    run_train(config)
    files = {path: path.stat().st_mtime_ns for path in Path(config["output"]).rglob("*") if path.name != ".lock"}
    result = train(config, pair=open_pair(config), prompts=ROWS, validation=ROWS)
    assert result.step == 2
    assert "complete after 2 steps" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_more_steps_continue_a_finished_run(settings):
    run_train(settings(max_steps=2))
    result = run_train(settings(max_steps=3))
    assert result.step == 3
    assert [json.loads(line)["step"] for line in result.metrics.read_text().splitlines()][-2:] == [3, 3]


def test_resume_modes_and_other_settings_are_refused(settings):
    with pytest.raises(CheckpointError, match="SKD-K07"):
        run_train(settings(max_steps=1), resume="must")
    run_train(settings(max_steps=1))
    with pytest.raises(CheckpointError, match="SKD-K15"):
        run_train(settings(max_steps=1), resume="never")
    with pytest.raises(CheckpointError, match=r"train\.lr +0\.01 +0\.02"):
        run_train(settings(max_steps=1, lr=0.02))
    config = settings(max_steps=1)
    rows = replace(ROWS, ids=[[9], *ROWS.ids[1:]])
    with pytest.raises(CheckpointError, match=r"SKD-D13.*training rows"):
        train(config, pair=open_pair(config), prompts=rows, validation=ROWS, display=False)


def test_changed_rows_are_refused_before_weights_are_read(settings, monkeypatch):
    run_train(settings(max_steps=1))
    rows = replace(ROWS, references=[[9], *ROWS.references[1:]])
    monkeypatch.setattr("skd.train.loop.prepare", lambda *arguments, **options: pytest.fail("weights were read"))
    with pytest.raises(CheckpointError, match=r"SKD-D13.*training rows"):
        train(settings(max_steps=1), prompts=rows, validation=ROWS, display=False, checked=Checked((), None, None, ""))


def test_sft_needs_no_teacher(settings):
    config = {**settings(method="sft", max_steps=1), "teacher": None}
    pair = skd.load_pair(None, config["student"], device="cpu")
    result = run_train(config, pair=pair)
    view = json.loads((result.run_dir / "tokens" / "step-1.json").read_text())["responses"][0]
    assert view["teacher_top"] == [[] for _ in view["ids"]]
    assert view["divergence"] == [None for _ in view["ids"]]


def test_a_half_precision_copy_samples_and_follows_the_master_weights(settings):
    config = settings(max_steps=1, validate_every=None)
    pair = skd.load_pair(config["teacher"], config["student"], device="cpu", sample_dtype="bfloat16")
    run_train(config, pair=pair)
    copied = dict(pair.sampling_student.named_parameters())
    for name, master in pair.student.named_parameters():
        assert master.dtype == torch.float32
        assert torch.equal(copied[name], master.bfloat16())


def test_callbacks_are_told_of_every_row_of_the_metrics(settings):
    told, also = [], []
    result = run_train(settings(), callbacks=[told.append, also.append])
    assert told == also == [json.loads(line) for line in result.metrics.read_text().splitlines()]


def test_what_a_callback_raises_ends_the_run_which_goes_on_from_its_checkpoint(settings, uninterrupted):
    def stop(row):
        if row["step"] == 5:
            raise RuntimeError("enough")

    config = settings()
    with pytest.raises(RuntimeError, match="enough"):
        run_train(config, callbacks=[stop])
    run_train(config, resume="must")
    assert end_state(config["output"], 6) == uninterrupted()

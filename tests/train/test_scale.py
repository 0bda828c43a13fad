"""float16: one step agrees with float32, an overflow is skipped, and the loss scale outlives a resume."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.amp import GradScaler

from skd import faults
from skd.errors import NumericsError
from skd.train import scale, setup
from skd.train.checkpoint import read_state
from skd.train.step import redo_step, train_step
from skd.train.tensors import optimizer_tensors
from tests.train.conftest import end_state, open_run, run_train
from tests.train.test_step import step_with_gradients


def scaled_by(monkeypatch, init_scale, growth_interval=2000):
    """Other numbers of the scaler: the tiny models' gradients are above 30, which 65,536 times is no float16."""

    def make(precision, device):
        options = {"init_scale": init_scale, "growth_interval": growth_interval}
        return GradScaler(device.type, enabled=precision == "fp16", **options)

    monkeypatch.setattr(setup, "loss_scaler", make)


@pytest.mark.parametrize("method", ["sft", "supervised_kd"])
def test_a_step_agrees_with_that_in_float32(settings, monkeypatch, method):
    scaled_by(monkeypatch, 64.0)
    config = settings(method=method, student="steady")
    found, gradients = step_with_gradients(open_run(config))
    config["train"]["precision"] = "fp16"
    run = open_run(config)
    half, scaled = step_with_gradients(run)
    assert half["loss"] == pytest.approx(found["loss"], rel=2e-3)
    assert half["grad_norm"] == pytest.approx(found["grad_norm"], rel=1e-2)
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()])
    # At the last backward they are still multiplied by the loss scale.
    halves = torch.cat([gradient.flatten() for gradient in scaled.values()]) / half["loss_scale"]
    assert (halves - whole).norm() <= 1e-2 * whole.norm()
    assert not torch.equal(halves, whole)


def overflowing(run, *, always=False):
    """A hook that makes one gradient infinite at every step, or at the second one alone."""
    seen = []

    def harm(name):
        if name == "backward":
            seen.append(name)
            if always or len(seen) == 2:
                next(run.pair.student.parameters()).grad.view(-1)[0] = float("inf")

    return faults.hooked(harm)


def moments_of(run):
    return optimizer_tensors(run.optimizer, run.pair.student)


def test_a_step_whose_gradient_overflows_is_left_out_and_the_scale_halved(settings, monkeypatch):
    scaled_by(monkeypatch, 64.0)
    run = open_run(settings(method="sft", precision="fp16"))
    with overflowing(run):
        assert train_step(run, 0).metrics["loss_scale"] == 64.0
        before = [parameter.detach().clone() for parameter in run.pair.student.parameters()]
        moments = {name: value.clone() for name, value in moments_of(run).items()}
        skipped = train_step(run, 1).metrics
    assert (skipped["loss_scale"], skipped["grad_norm"]) == (32.0, None)
    assert all(map(torch.equal, before, run.pair.student.parameters()))
    assert all(torch.equal(moments[name], value) for name, value in moments_of(run).items())
    assert train_step(run, 2).metrics["grad_norm"] > 0.0
    assert not all(map(torch.equal, before, run.pair.student.parameters()))


def test_overflows_that_do_not_end_stop_the_run(settings):
    run = open_run(settings(method="sft", precision="fp16"))
    before = [parameter.detach().clone() for parameter in run.pair.student.parameters()]
    with overflowing(run, always=True):
        scales = [train_step(run, step).metrics["loss_scale"] for step in range(16)]
        with pytest.raises(NumericsError, match="step 16: gradients overflow float16") as caught:
            train_step(run, 16)
    assert scales == [2.0**power for power in range(15, -1, -1)]
    assert "write train.precision: bf16 or fp32, and resume with --allow train.precision" in str(caught.value)
    assert all(map(torch.equal, before, run.pair.student.parameters()))
    dump = json.loads((run.run_dir / "nonfinite-step-16.json").read_text())
    assert (len(dump["parameters"]), dump["loss_scale"]["scale"]) == (1, 1.0)


def test_a_loss_that_is_not_finite_is_no_matter_of_the_scale(settings):
    run = open_run(settings(method="sft", precision="fp16"))
    with torch.no_grad():
        run.pair.student.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(NumericsError, match="SKD-T01"):
        train_step(run, 0)
    later = open_run(settings(method="sft", precision="fp16"))
    for _ in range(2):
        redo_step(later, run.run_dir / "nonfinite-step-0.json")
    assert later.scaler.get_scale() == 65536.0


@pytest.mark.parametrize("method", ["sft", "skd"])
def test_stop_and_resume_has_the_scale_and_the_bits_of_the_uninterrupted_run(settings, monkeypatch, tmp_path, method):
    scaled_by(monkeypatch, 4.0, growth_interval=2)
    config = settings(method=method, precision="fp16", save_every=1, keep=9, max_steps=7)
    run_train(config)
    whole, expected = Path(config["output"]), end_state(config["output"], 7)
    scales = [json.loads(line).get("loss_scale") for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [one for one in scales if one is not None] == [4.0, 8.0, 8.0, 16.0, 16.0, 32.0, 32.0]
    for step in (2, 3):
        again = tmp_path / f"from-{step}"
        shutil.copytree(
            whole, again, ignore=shutil.ignore_patterns("student", *(f"step-{n}" for n in range(step + 1, 8)))
        )
        assert read_state(again / "checkpoints" / f"step-{step}").loss_scale["_growth_tracker"] == step % 2
        run_train({**config, "output": str(again)}, resume="must")
        assert end_state(again, 7) == expected


def test_other_precisions_have_no_scale(settings):
    for precision in ("fp32", "bf16"):
        run = open_run(settings(method="sft", precision=precision))
        assert "loss_scale" not in train_step(run, 0).metrics
        assert not scale.overflowed(run)

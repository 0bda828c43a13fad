"""A step that is not finite can be taken again from what it left: see docs/trust.md."""

import math

import pytest
import torch

from skd.errors import NumericsError
from skd.train.nonfinite import write_dump
from skd.train.step import redo_step, train_step
from tests.train.conftest import open_run


@pytest.mark.parametrize("method", ["sft", "skd", "on_policy"])
def test_the_dump_gives_the_loss_and_the_gradient_of_the_step_bit_by_bit(settings, method):
    config = settings(method=method)
    config["sampling"] = {**config.get("sampling", {}), "evidence": "recompute"}
    run = open_run(config)
    train_step(run, 0)
    dump = run.run_dir / "nonfinite-step-1.json"
    weights = {name: parameter.detach().clone() for name, parameter in run.pair.student.named_parameters()}
    report = train_step(run, 1)
    with torch.no_grad():
        for name, parameter in run.pair.student.named_parameters():
            parameter.copy_(weights[name])
    write_dump(run, dump, 1, report.metrics["loss"], report.metrics["grad_norm"], report.rollout)

    later = open_run(config)
    assert redo_step(later, dump) == (report.metrics["loss"], report.metrics["grad_norm"])


def test_a_step_that_is_not_finite_is_not_finite_again(settings):
    run = open_run(settings(method="sft"))
    with torch.no_grad():
        run.pair.student.get_output_embeddings().weight[5] = float("inf")
    with pytest.raises(NumericsError, match="start again in another output with a smaller"):
        train_step(run, 0)
    loss, _ = redo_step(open_run(settings(method="sft")), run.run_dir / "nonfinite-step-0.json")
    assert not math.isfinite(loss)


def test_without_a_disk_the_cause_is_still_told(settings):
    run = open_run(settings(method="sft"))
    (run.run_dir / "nonfinite-step-0.json").mkdir()
    with torch.no_grad():
        run.pair.student.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(NumericsError):
        train_step(run, 0)

"""Teachers made of the student, and a teacher with prompts of its own: a step against its definition, whole runs."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import skd
from skd.models import Adapters
from skd.train import train
from skd.train.nonfinite import refuse_nonfinite
from skd.train.step import redo_step, train_step
from tests.train.conftest import ROWS, end_state, open_run
from tests.train.test_loop import at
from tests.train.test_methods import distance, reported_step

OWN = replace(ROWS, teacher_ids=[[9 + i % 4, 5, 8, 7][i % 3 :] for i in range(10)])
"""The teacher's prompts: longer, shorter and as long as the student's, with other last tokens."""
TEACHERS = {"student": skd.CurrentStudent(), "average": skd.MovingAverage(0.75), "adapter_off": skd.AdapterOff()}


def config_of(settings, method="skd", **train_keys):
    config = settings(method=method, student="steady", batch_size=6, micro_batch_tokens=16, **train_keys)
    config["sampling"] |= {"teacher": {"temperature": 1.0}}
    if method == "skd":
        config["policy"] = {"gate": {"kind": "top_k", "k": 20}, "block": 3}
    return config


def pair_of(config, kind, **keys):
    teacher = TEACHERS.get(kind, config["teacher"])
    adapters = Adapters(r=2, alpha=8.0) if kind == "adapter_off" else None
    return skd.load_pair(teacher, config["student"], device="cpu", adapters=adapters, **keys)


def run_whole(config, kind, **keys):
    return train(config, pair=pair_of(config, kind), prompts=OWN, validation=OWN, display=False, **keys)


def defined_loss(pair, rollout):
    """The forward KL of these responses, each model behind its own prompt, softmax in float64."""
    losses = []
    for prompt, own, response in zip(rollout.prompt_ids, rollout.read_by_teacher, rollout.response_ids, strict=True):
        s = pair.student(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        with torch.no_grad():
            t = pair.teacher(torch.cat([own, response])[None]).logits[0, len(own) - 1 : -1].double().log_softmax(-1)
        losses.append((t.exp() * (t - s)).sum(-1))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("evidence", ["keep", "recompute"])
@pytest.mark.parametrize("method", ["skd", "on_policy", "seq_kd", "supervised_kd"])
@pytest.mark.parametrize("kind", ["model", "student", "average", "adapter_off"])
def test_loss_and_gradient_of_a_step_are_the_defined_ones(settings, kind, method, evidence):
    config = config_of(settings, method)
    config["objective"] = {"loss": "forward_kl"}
    config["sampling"]["evidence"] = evidence
    run = open_run(config, OWN, pair_of(config, kind))
    before = {name: tensor.clone() for name, tensor in run.pair.student.state_dict().items()}
    report, gradients = reported_step(run)
    run.pair.student.load_state_dict(before)
    if kind == "average":
        run.pair.teacher.load_state_dict(before)
    loss = defined_loss(run.pair, report.rollout)
    assert loss > 1e-3
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    run.pair.student.zero_grad()
    loss.backward()
    expected = {name: p.grad for name, p in run.pair.student.named_parameters() if p.requires_grad}
    assert distance(gradients, expected) < 1e-5


def test_the_current_student_is_one_model_in_one_memory(settings):
    config = config_of(settings)
    pair = pair_of(config, "student")
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())
    run = open_run(config, OWN, pair)
    train_step(run, 0)
    for mine, its in zip(pair.student.parameters(), pair.teacher.parameters(), strict=True):
        assert mine.data_ptr() == its.data_ptr()
        assert torch.equal(mine, its)


def test_the_teacher_without_adapters_stays_what_the_student_was(settings):
    config = config_of(settings)
    pair = pair_of(config, "adapter_off")
    start = {name: tensor.clone() for name, tensor in pair.teacher.state_dict().items()}
    assert not any("lora" in name for name in start)
    run = open_run(config, OWN, pair)
    for step in range(2):
        train_step(run, step)
    assert all(torch.equal(tensor, start[name]) for name, tensor in pair.teacher.state_dict().items())
    shared = {parameter.data_ptr() for parameter in pair.student.parameters()}
    assert {parameter.data_ptr() for parameter in pair.teacher.parameters()} < shared


def test_without_a_prompt_of_its_own_the_current_student_has_nothing_to_teach(settings):
    config = config_of(settings, "on_policy")
    run = open_run(config, ROWS, pair_of(config, "student"))
    assert train_step(run, 0).metrics["loss"] == pytest.approx(0.0, abs=1e-7)


def test_the_average_follows_the_student_as_it_is_defined(settings):
    config = config_of(settings, "supervised_kd")
    run = open_run(config, OWN, pair_of(config, "average"))
    expected = [parameter.detach().double() for parameter in run.pair.student.parameters()]
    for step in range(3):
        train_step(run, step)
        students = [parameter.detach().double() for parameter in run.pair.student.parameters()]
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, students, strict=True)]
    for found, wanted in zip(run.pair.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["student", "average", "adapter_off"])
@pytest.mark.parametrize("method", ["skd", "supervised_kd"])
def test_stop_and_resume_is_bit_for_bit_the_uninterrupted_run(settings, tmp_path, kind, method):
    config = config_of(settings, method)
    run_whole({**config, "output": str(tmp_path / "whole")}, kind)
    with at("step", 3, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit):
        run_whole(config, kind)
    run_whole(config, kind, resume="must")
    assert end_state(config["output"], 6) == end_state(tmp_path / "whole", 6)
    saved = load_file(Path(config["output"]) / "checkpoints" / "step-6" / "optimizer.safetensors")
    assert any(name.startswith("average.") for name in saved) == (kind == "average")


def test_a_half_precision_copy_samples_beside_a_teacher_of_full_precision(settings):
    config = config_of(settings)
    pair = pair_of(config, "student", sample_dtype="bfloat16")
    run = open_run(config, OWN, pair)
    train_step(run, 0)
    assert pair.teacher.dtype == torch.float32
    for mine, copied in zip(pair.student.parameters(), pair.sampling_student.parameters(), strict=True):
        assert torch.equal(mine.bfloat16(), copied)


@pytest.mark.parametrize("kind", ["student", "average"])
def test_a_dumped_step_can_be_taken_again(settings, kind):
    config = config_of(settings)
    run = open_run(config, OWN, pair_of(config, kind))
    train_step(run, 0)
    report, _ = reported_step(run)
    before = pair_of(config, kind)
    again = open_run(config, OWN, before)
    train_step(again, 0)
    with pytest.raises(skd.NumericsError):
        refuse_nonfinite(again, 0, float("nan"), 1.0, report.rollout)
    loss, _ = redo_step(open_run(config, OWN, pair_of(config, kind)), again.run_dir / "nonfinite-step-0.json")
    assert loss == pytest.approx(report.metrics["loss"], rel=1e-5)


def test_prompts_of_the_teacher_are_part_of_the_data_that_a_run_was_started_with(settings):
    config = config_of(settings, max_steps=2)
    run_whole(config, "student")
    other = replace(OWN, teacher_ids=[[4, 4]] * 10)
    with pytest.raises(skd.CheckpointError, match="the training rows are not those"):
        train(
            config | {"train": config["train"] | {"max_steps": 3}},
            pair=pair_of(config, "student"),
            prompts=other,
            validation=OWN,
            display=False,
        )


@pytest.mark.parametrize("teacher", [{"kind": "student"}, {"kind": "average", "decay": 0.9}, {"kind": "adapter_off"}])
def test_a_config_says_it_all(tmp_path, teacher):
    config = {
        "method": "on_policy",
        "teacher": teacher,
        "student": {"path": "builtin:number_words/student", "lora": {"r": 4}},
        "data": {
            "train": {"kind": "task", "name": "number_words", "split": "train", "size": 8},
            "teacher_prompt": "{prompt} {response}",
        },
        "sampling": {"max_new_tokens": 6},
        "train": {"max_steps": 2, "batch_size": 4, "trackers": []},
        "output": str(tmp_path / "run"),
    }
    result = train(config, display=False)
    rows = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    assert all(row["loss"] > 0 for row in rows if "loss" in row)
    card = (result.student_dir / "README.md").read_text()
    assert re.search("moving average|current weights|adapters off", card)

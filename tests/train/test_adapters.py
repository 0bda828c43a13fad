"""Whole runs with adapters: the weights stay, checkpoints hold adapters alone, resuming ends in the same bits."""

import shutil

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import skd
from skd.check import check
from skd.config import config_of
from skd.errors import CheckpointError
from skd.models.adapters import Adapters
from skd.train import train
from tests.train.conftest import ROWS, end_state

LORA = {"r": 4, "alpha": 8, "dropout": 0.2}


@pytest.fixture
def config(settings):
    """config(**train): a run whose models are loaded from their directories, with adapters."""

    def build(output=None, **train_keys):
        values = settings(**train_keys)
        values["student"] = {"path": values["student"], "lora": LORA}
        return values | ({} if output is None else {"output": str(output)})

    return build


def run(config, **keys):
    return train(config_of(config), prompts=ROWS, validation=ROWS, display=False, **keys)


def names(path):
    with safe_open(path, "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("method", ["skd", "sft", "on_policy"])
def test_only_adapters_move_and_the_export_is_plain(config, models, method):
    result = run(config() | {"method": method})
    checkpoint = result.run_dir / "checkpoints" / f"step-{result.step}"
    assert names(checkpoint / "student.safetensors")
    assert all(".lora_" in name for name in names(checkpoint / "student.safetensors"))
    assert all(".lora_" in name for name in names(checkpoint / "optimizer.safetensors"))

    start = AutoModelForCausalLM.from_pretrained(models / "student")
    end = AutoModelForCausalLM.from_pretrained(result.student_dir)
    assert set(start.state_dict()) == set(end.state_dict())
    adapted = {name for name in start.state_dict() if not torch.equal(start.state_dict()[name], end.state_dict()[name])}
    assert adapted == {name for name in start.state_dict() if "_proj" in name}


def test_the_export_has_the_logits_of_the_adapted_student(config, models, tmp_path):
    pair = skd.load_pair(models / "teacher", models / "student", adapters=Adapters(r=4), device="cpu")
    result = train(config_of(config()), pair=pair, prompts=ROWS, display=False)
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    with torch.no_grad():
        exported = AutoModelForCausalLM.from_pretrained(result.student_dir).eval()(ids).logits
        torch.testing.assert_close(exported, pair.student.eval()(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_ends_in_the_same_bits(config, tmp_path):
    whole = run(config(tmp_path / "whole", keep=9))
    part = run(config(tmp_path / "part", keep=9))
    for step in (4, 6):
        shutil.rmtree(part.run_dir / "checkpoints" / f"step-{step}")
    shutil.rmtree(part.student_dir)
    run(config(tmp_path / "part", keep=9), resume="must")
    assert end_state(whole.run_dir, 6) == end_state(part.run_dir, 6)


def test_other_adapters_are_another_run(config, tmp_path):
    run(config(tmp_path / "run", max_steps=2))
    other = config(tmp_path / "run", max_steps=4)
    other["student"]["lora"] = LORA | {"r": 2}
    with pytest.raises(CheckpointError):
        run(other)


def test_a_moving_average_of_adapters_resumes(config, tmp_path):
    values = {"teacher": {"kind": "average", "decay": 0.5}, "method": "supervised_kd"}
    whole = run(config(tmp_path / "whole", keep=9) | values)
    part = run(config(tmp_path / "part", keep=9) | values)
    for step in (4, 6):
        shutil.rmtree(part.run_dir / "checkpoints" / f"step-{step}")
    run(config(tmp_path / "part", keep=9) | values, resume="must")
    assert end_state(whole.run_dir, 6) == end_state(part.run_dir, 6)


def test_check_counts_adapters_and_finds_wrong_targets(config):
    right = check(config_of(config()), rows=False)
    (student,) = [part for part in right.parts if part.name == "student"]
    assert any("of adapters" in fact for fact in student.facts)
    wrong = config()
    wrong["student"]["lora"] = {"targets": ["q_prj"]}
    assert "peft cannot adapt this model" in str(check(config_of(wrong), rows=False).parts)

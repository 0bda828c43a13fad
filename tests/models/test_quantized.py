"""Quantised teachers: near the plain one, the same through the sampler's cache and the loss, with fewer bits."""

import pytest
import torch

import skd
from skd.errors import ConfigError, ModelError
from skd.models import score
from skd.train import train
from tests.tiny import save_tiny
from tests.train.conftest import ROWS

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the two libraries while they are loaded

IDS = torch.arange(2, 22).reshape(2, 10)
FAMILIES = ["llama", "qwen2", "gemma", "gemma2", "gemma3"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("quantized")
    for family in FAMILIES:
        save_tiny(directory / family, family, seed=1, hidden=64)
    save_tiny(directory / "student", "llama", seed=2, hidden=32)
    return directory


def distance(models, family, quantization, **keys):
    """Mean KL from the plain teacher's distributions to the quantised one's."""
    pairs = [
        skd.load_pair(models / family, models / family, teacher_quantization=quantization, device="cpu", **keys)
        for quantization in (None, quantization)
    ]
    with torch.no_grad():
        plain, narrow = (pair.teacher(IDS).logits.float().log_softmax(-1) for pair in pairs)
    return float((plain.exp() * (plain - narrow)).sum(-1).mean())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("quantization", "near"), [("int8", 0.01), ("nf4", 0.6)])
def test_it_is_near_the_teacher_it_is_made_of(models, family, quantization, near):
    assert 0 < distance(models, family, quantization) < near


def test_bfloat16_arithmetic(models):
    assert distance(models, "llama", "int8", teacher_dtype="bfloat16") < 0.02


@pytest.mark.parametrize(("quantization", "name"), [("int8", "Int8Tensor"), ("nf4", "Params4bit")])
def test_linear_layers_hold_fewer_bits_and_the_head_does_not(models, quantization, name):
    pair = skd.load_pair(models / "llama", models / "student", teacher_quantization=quantization, device="cpu")
    weight = pair.teacher.model.layers[0].self_attn.q_proj.weight
    assert name in (type(weight).__name__, type(weight.data).__name__)
    assert type(pair.teacher.lm_head.weight) is torch.nn.Parameter
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())
    assert pair.provenance["teacher"]["quantization"] == quantization


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_evidence_of_the_judging_is_that_of_a_whole_forward(models, quantization):
    pair = skd.load_pair(models / "llama", models / "student", teacher_quantization=quantization, device="cpu")
    rollout = skd.interleave(pair, ROWS, gate=skd.TopK(3), max_new_tokens=6, seed=0)
    again = score(pair.required_teacher, rollout.prompt_ids, rollout.response_ids)
    for kept, computed in zip(rollout.evidence, again, strict=True):
        torch.testing.assert_close(kept, computed, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_run(models, tmp_path, quantization):
    config = {
        "teacher": {"path": str(models / "llama"), "quantization": quantization},
        "student": str(models / "student"),
        "data": {"train": "rows.json"},
        "sampling": {"max_new_tokens": 5},
        "train": {"max_steps": 2, "batch_size": 3, "lr": 0.01, "trackers": []},
        "output": str(tmp_path / "run"),
    }
    assert train(config, prompts=ROWS, display=False).step == 2


def test_what_is_missing_or_unknown_is_said(models, monkeypatch):
    with pytest.raises(ConfigError, match="teacher_quantization: is 'int2'; write int8 or nf4"):
        skd.load_pair(models / "llama", models / "student", teacher_quantization="int2", device="cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"the package torchao is not installed; install skd\[quantized\]"):
        skd.load_pair(models / "llama", models / "student", teacher_quantization="int8", device="cpu")

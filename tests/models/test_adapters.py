"""Adapters: what is trained, what stays, and that the merged model is both in one."""

import re

import pytest
import torch

import skd
from skd.errors import ModelError
from skd.models import Adapters
from skd.models.adapters import merged
from tests.tiny import FAMILIES, save_tiny, tiny_model

IDS = torch.arange(2, 12).reshape(2, 5)


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def perturb(model):
    """Give B other values than 0, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # experts under another name
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_logits_are_the_adapted_ones(family):
    model = tiny_model(family, seed=1)
    with torch.no_grad():
        before = model(IDS).logits
        Adapters(r=3, alpha=5.0, dropout=0.0 if "moe" in family or family == "mixtral" else 0.5).add_to(model)
        assert torch.equal(model(IDS).logits, before)
        perturb(model)
        adapted = model(IDS).logits
        plain = merged(model)
        assert not any("lora" in name for name in plain.state_dict())
        assert float((adapted - before).abs().max()) > 0.01
        torch.testing.assert_close(plain(IDS).logits, adapted, rtol=1e-4, atol=1e-4)
    assert trained(model)
    assert all("lora" in name for name in trained(model))


def test_the_merged_weight_is_the_formula():
    model = tiny_model("llama", seed=1)
    weight = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    Adapters(r=3, alpha=5.0, targets=("q_proj",)).add_to(model)
    perturb(model)
    layer = model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    found = merged(model).model.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(found, weight + 5.0 / 3 * b @ a)
    assert {name.split(".")[4] for name in trained(model)} == {"q_proj"}


def test_the_seed_chooses_the_adapters_and_draws_nothing_else():
    state = torch.get_rng_state()
    models = [tiny_model("llama", seed=1) for _ in range(3)]
    for seed, model in zip((0, 0, 1), models, strict=True):
        Adapters(seed=seed).add_to(model)
    first, again, other = (dict(model.named_parameters())[trained(model)[0]] for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore")  # peft's own, while torchao is loaded
def test_experts_take_no_dropout():
    with pytest.raises(ModelError, match="lora_dropout"):
        Adapters(dropout=0.1).add_to(tiny_model("mixtral", seed=1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_copy_that_samples_follows(tmp_path, dtype):
    save_tiny(tmp_path, "llama", seed=2)
    pair = skd.load_pair(None, tmp_path, sample_dtype=dtype, adapters=Adapters(), device="cpu")
    perturb(pair.student)
    pair.sync()
    with torch.no_grad():
        ours, theirs = pair.student(IDS).logits, pair.sampling_student(IDS).logits.float()
    assert float((theirs - ours).norm() / ours.norm()) < (0.03 if dtype == "bfloat16" else 1e-6)
    assert pair.sampling_student.model.layers[0].mlp.up_proj.base_layer.weight.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (("q_prj",), "peft cannot adapt this model"),
        (("lm_head",), "targets lm_head, which is the head or the embedding"),
        (("embed_tokens",), "the head or the embedding|cannot adapt"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(targets, found):
    with pytest.raises(ModelError, match=found) as caught:
        Adapters(targets=targets).add_to(tiny_model("llama", seed=1))
    assert re.search(r"error\[SKD-M20\] student.lora: ", str(caught.value))


def test_without_peft_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"the package peft is not installed; install skd\[lora\]"):
        Adapters().add_to(tiny_model("llama", seed=1))

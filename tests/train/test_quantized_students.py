"""Adapters over quantised weights (QLoRA): what is trained, sampled, saved, resumed and exported is one model."""

import shutil

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import skd
from skd.check import check
from skd.check.memory import estimate
from skd.config import config_of
from skd.errors import ConfigError, ModelError
from skd.models import Adapters
from skd.models.adapters import merged
from skd.train import train
from skd.types import Prompts
from tests.tiny import FAMILIES, save_tiny, tiny_model
from tests.train.conftest import ROWS, end_state

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the two libraries while they are loaded

IDS = torch.arange(2, 22).reshape(2, 10)
QUANTIZATIONS = ["int8", "nf4"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("qlora")
    save_tiny(path / "teacher", "llama", seed=1, hidden=64)
    save_tiny(path / "student", "llama", seed=2, hidden=64)
    return path


@pytest.fixture
def settings(directory, tmp_path):
    """settings(quantization, output, **train): a config as plain data."""

    def build(quantization, output="run", **train_keys):
        lora = {"r": 4, "alpha": 8, "dropout": 0.2}
        return {
            "teacher": str(directory / "teacher"),
            "student": {"path": str(directory / "student"), "lora": lora, "quantization": quantization},
            "data": {"train": "rows.json"},
            "sampling": {"max_new_tokens": 5},
            "train": {
                "max_steps": 4,
                "batch_size": 3,
                "lr": 0.01,
                "validate_every": 2,
                "save_every": 2,
                "keep": 9,
                "trackers": [],
                **train_keys,
            },
            "output": str(tmp_path / output),
        }

    return build


def run(values, **keys):
    return train(config_of(values), prompts=ROWS, validation=ROWS, display=False, **keys)


def loaded(path, quantization, **keys):
    keys = {"adapters": Adapters(r=4, alpha=8.0), "device": "cpu"} | keys
    return skd.load_pair(None, path, student_quantization=quantization, **keys)


def perturb(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def logits(model):
    with torch.no_grad():
        return model(IDS).logits.float()


def classes(model):
    return {type(parameter).__name__ for parameter in model.parameters()}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_merged_model_is_plain_and_is_the_one_that_was_trained(tmp_path, family, quantization):
    save_tiny(tmp_path / "model", family, seed=1, hidden=64)
    if (family, quantization) == ("gpt2", "int8"):
        with pytest.raises(ModelError, match="int8 quantises none of its layers"):
            loaded(tmp_path / "model", quantization)
        return
    student = loaded(tmp_path / "model", quantization).student
    perturb(student)
    adapted = logits(student)
    merged(student).save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert classes(plain) == {"Parameter"}
    assert "quantization" not in (tmp_path / "merged" / "config.json").read_text()
    torch.testing.assert_close(logits(plain), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("quantization", "near"), [("int8", 0.01), ("nf4", 0.6)])
def test_the_weights_under_the_adapters_are_rounded_ones(directory, quantization, near):
    student, plain = loaded(directory / "student", quantization).student, loaded(directory / "student", None).student
    wanted = logits(plain).log_softmax(-1)
    distance = (wanted.exp() * (wanted - logits(student).log_softmax(-1))).sum(-1).mean()
    assert 0 < float(distance) < near
    assert all("lora" in name for name, parameter in student.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_training_and_sampling_read_the_same_weights(directory, quantization):
    student = loaded(directory / "student", quantization).student
    sampled = logits(student)
    trained = student.train()(IDS.clone()).logits.float()
    assert trained.requires_grad
    torch.testing.assert_close(trained, sampled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_copy_that_samples_follows_and_shares_the_weights(directory, quantization):
    pair = loaded(directory / "student", quantization, sample_dtype="bfloat16")
    perturb(pair.student)
    pair.sync()
    ours, theirs = logits(pair.student), logits(pair.sampling_student)
    assert 0 < float((theirs - ours).norm() / ours.norm()) < 0.03
    weights = [model.model.layers[0].mlp.up_proj.base_layer.weight for model in (pair.student, pair.sampling_student)]
    assert weights[0] is weights[1]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("method", ["skd", "sft"])
def test_a_resumed_run_ends_in_the_same_bits(settings, quantization, method):
    keys = {"method": method}
    whole = run(settings(quantization, "whole") | keys)
    part = run(settings(quantization, "part") | keys)
    shutil.rmtree(part.run_dir / "checkpoints" / "step-4")
    shutil.rmtree(part.student_dir)
    run(settings(quantization, "part") | keys, resume="must")
    assert end_state(whole.run_dir, 4) == end_state(part.run_dir, 4)
    with safe_open(part.run_dir / "checkpoints" / "step-4" / "student.safetensors", "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118  (no mapping)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_export_has_the_logits_of_the_trained_student(settings, directory, quantization):
    pair = skd.load_pair(
        directory / "teacher",
        directory / "student",
        adapters=Adapters(r=4),
        student_quantization=quantization,
        device="cpu",
    )
    start = logits(pair.student)
    result = train(config_of(settings(quantization)), pair=pair, prompts=ROWS, display=False)
    exported = logits(AutoModelForCausalLM.from_pretrained(result.student_dir).eval())
    torch.testing.assert_close(exported, logits(pair.student), rtol=1e-4, atol=1e-5)
    assert float((exported - start).abs().max()) > 0.01


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("teacher", [{"kind": "adapter_off"}, {"kind": "average", "decay": 0.5}, {"kind": "student"}])
def test_teachers_made_of_the_student(settings, quantization, teacher):
    values = settings(quantization, max_steps=2) | {"teacher": teacher}
    assert run(values).step == 2


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_bfloat16_and_less_activations(settings, quantization):
    values = settings(quantization, max_steps=2, precision="bf16", gradient_checkpointing=True)
    values["student"]["dtype"] = "bfloat16"
    assert run(values).step == 2


def test_other_bits_are_another_run(settings):
    run(settings("int8", max_steps=2))
    with pytest.raises(skd.errors.CheckpointError):
        run(settings("nf4"))


def test_without_adapters_there_is_nothing_to_train(settings, directory):
    values = settings("nf4")
    del values["student"]["lora"]
    with pytest.raises(ConfigError, match=r"student.quantization is given and student.lora is missing"):
        config_of(values)
    with pytest.raises(ConfigError, match=r"student_quantization: is 'nf4', and quantised weights cannot be trained"):
        loaded(directory / "student", "nf4", adapters=None)


def test_check_counts_the_bits(directory, settings):
    report = check(config_of(settings("nf4")), rows=False)
    assert not [error for part in report.parts for error in part.errors]
    architecture, prompts = tiny_model("llama", seed=1, hidden=64), Prompts([[3, 4]], [0])
    Adapters(r=4).add_to(architecture)
    found = estimate(config_of(settings("nf4")), architecture, architecture, prompts).fixed["student weights"]
    student = loaded(directory / "student", "nf4").student
    assert found == sum(parameter.numel() * parameter.element_size() for parameter in student.parameters())

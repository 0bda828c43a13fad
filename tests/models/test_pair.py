"""What load_pair promises of the models it hands out, and what it refuses."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

import skd
from skd.errors import ConfigError
from skd.models import export_student
from skd.train.tensors import student_tensors
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pair")
    save_tiny(directory / "teacher", "llama", seed=1, hidden=48)
    save_tiny(directory / "student", "llama", seed=2, max_positions=512)
    save_tiny(directory / "tied", "gemma", seed=3)
    return directory


@pytest.mark.parametrize("name", ["student", "tied"])
def test_a_half_precision_copy_has_rounded_weights_and_exact_frequencies(places, name):
    pair = skd.load_pair(places / "teacher", places / name, device="cpu", sample_dtype="bfloat16")
    loaded = AutoModelForCausalLM.from_pretrained(places / name, dtype=torch.bfloat16)
    copied = pair.sampling_student
    assert {p.dtype for p in copied.parameters()} == {torch.bfloat16}
    assert len(list(copied.parameters())) == len(list(loaded.parameters()))
    frequencies = {key: value for key, value in copied.named_buffers() if "inv_freq" in key}
    assert frequencies
    for key, value in frequencies.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, dict(loaded.named_buffers())[key])
    ids_BT = torch.randint(2, 64, (1, 100), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(copied(input_ids=ids_BT).logits, loaded(input_ids=ids_BT).logits)


def test_sync_carries_an_update_to_every_weight_of_the_copy_tied_ones_too(places):
    pair = skd.load_pair(places / "teacher", places / "tied", device="cpu", sample_dtype="bfloat16")
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.add_(0.25)
    pair.sync()
    masters = student_tensors(pair.student)
    for name, copied in pair.sampling_student.named_parameters():
        assert torch.equal(copied, masters[name].bfloat16())
    assert pair.sampling_student.get_output_embeddings().weight is pair.sampling_student.get_input_embeddings().weight
    ids_BT = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        ours, theirs = (m(input_ids=ids_BT).logits.float() for m in (pair.sampling_student, pair.student))
    torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("argument", "value", "text"),
    [
        ("teacher_dtype", "float16", "teacher_dtype: is 'float16'; write float32 or bfloat16"),
        ("sample_dtype", "bf16", "sample_dtype: is 'bf16'; write float32 or bfloat16"),
        ("attention", "flash", "attention: is 'flash'; write sdpa, eager or flash_attention_2"),
        ("device", "gpu", "device: is 'gpu'; write auto, cpu, cuda or cuda:N"),
    ],
)
def test_arguments_outside_their_choices_are_refused_before_anything_is_read(argument, value, text):
    with pytest.raises(ConfigError) as caught:
        skd.load_pair("/nowhere", "/nowhere", **{"device": "cpu", argument: value})
    assert text in str(caught.value)


def test_cuda_without_a_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: is 'cuda' and torch sees no CUDA device; write auto or cpu"):
        skd.load_pair(None, "/nowhere", device="cuda")


def test_a_generation_config_that_transformers_refuses_to_save_does_not_stop_the_export(places, tmp_path):
    source = save_tiny(tmp_path / "source", "llama", seed=2)
    path = source / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": False, "temperature": 0.9, "top_p": 0.6}))
    pair = skd.load_pair(None, source, device="cpu")
    out = export_student(pair, tmp_path / "out", "# card")
    saved = GenerationConfig.from_pretrained(out)
    assert saved.eos_token_id == [1]
    assert saved.pad_token_id == 0
    assert saved.temperature in (None, 1.0)
    assert (out / "README.md").read_text() == "# card"


def test_a_generation_config_that_samples_is_exported_as_it_is(places, tmp_path):
    source = save_tiny(tmp_path / "source", "llama", seed=2)
    path = source / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": True, "temperature": 0.7}))
    pair = skd.load_pair(None, source, device="cpu")
    saved = GenerationConfig.from_pretrained(export_student(pair, tmp_path / "out", "# card"))
    assert saved.do_sample
    assert saved.temperature == 0.7


def test_teacher_and_student_of_different_families_and_sizes_make_a_pair(tmp_path):
    teacher = save_tiny(tmp_path / "teacher", "qwen2", seed=1, hidden=48, padded_vocab=80)
    student = save_tiny(tmp_path / "student", "llama", seed=2, hidden=32, padded_vocab=70)
    pair = skd.load_pair(teacher, student, device="cpu")
    assert pair.teacher_head().weight_VD.shape == (64, 48)
    assert pair.student_head().weight_VD.shape == (64, 32)
    assert not any(parameter.requires_grad for parameter in pair.required_teacher.parameters())
    assert not pair.required_teacher.training


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("context", [1, 4, 7])
def test_a_context_shorter_than_the_probes_is_no_obstacle(tmp_path, family, context):
    place = save_tiny(tmp_path / family, family, seed=1, max_positions=16)
    config = json.loads((place / "config.json").read_text())
    key = "n_positions" if family == "gpt2" else "max_position_embeddings"
    model = AutoModelForCausalLM.from_pretrained(place)
    model.config.update({key: context})
    if family == "gpt2":
        model.transformer.wpe.weight = torch.nn.Parameter(model.transformer.wpe.weight[:context].clone())
    model.save_pretrained(place)
    assert config[key] == 16
    pair = skd.load_pair(place, place, device="cpu")
    assert pair.context == context
    if context > 1:
        rollout = skd.interleave(pair, skd.Prompts([[5]], [0]), max_new_tokens=context - 1)
        assert len(rollout.response_ids[0]) <= context - 1


def test_the_training_attention_is_on_while_training_only_and_changes_no_logits(places):
    pair = skd.load_pair(places / "teacher", places / "student", device="cpu", attention="eager")
    ids_BT = torch.randint(2, 64, (2, 20), generator=torch.Generator().manual_seed(0))
    config = pair.student.config
    assert (config._attn_implementation, pair.student.training) == ("sdpa", False)
    with torch.no_grad():
        sampling = pair.student(input_ids=ids_BT).logits
        with pair.training():
            assert (config._attn_implementation, pair.student.training) == ("eager", True)
            training = pair.student(input_ids=ids_BT).logits
    assert (config._attn_implementation, pair.student.training) == ("sdpa", False)
    torch.testing.assert_close(training, sampling, atol=1e-5, rtol=1e-5)

"""Config files with the keys of the published code: every key is moved, said to change nothing, or refused by name."""

import logging
from pathlib import Path

import pytest
import yaml

from skd.config import ScheduleConfig, load_config
from skd.config.legacy import handbook, kd_train
from skd.errors import ConfigError

HERE = Path(__file__).parent / "released"
KD = yaml.safe_load((HERE / "kd_train.yaml").read_text())
SFT = yaml.safe_load((HERE / "sft_config_samsum.yaml").read_text())


def load(tmp_path, data):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return load_config(path)


def kd(tmp_path, **changes):
    """The released file with some keys changed, named without their section; None takes a key out."""
    data = {section: dict(keys) for section, keys in KD.items()}
    for key, value in changes.items():
        section = next((s for s, keys in KNOWN.items() if key in keys), "task_params")
        data[section][key] = value
        if value is None:
            del data[section][key]
    return load(tmp_path, data)


def sft(tmp_path, **changes):
    data = {**SFT, **changes}
    return load(tmp_path, {key: value for key, value in data.items() if value is not None})


KNOWN = {
    "task_params": ["task_type", "inp_length", "max_new_tokens", "max_length", "expected_seq_len"],
    "kd_params": [
        *("kd_type", "top_k", "mixed_ratio", "student_temperature", "student_top_p"),
        *("teacher_temperature", "teacher_top_p", "distance_metric"),
    ],
    "training_params": ["seed", "lr", "grad_acc_size", "num_epoch", "eval_step", "early_stop_epoch", "mixed_precision"],
    "model_params": [
        *("checkpoint_template", "assistant_checkpoint_template", "assistant_checkpoint_override", "tokenizer_name"),
    ],
    "resource_params": ["gpu_group", "num_processes", "main_process_port", "user", "wandb_key", "wandb_proj"],
    "exec_params": ["debug_enable", "enable_stop_token", "ckpt_prefix"],
}


def test_the_released_file_is_the_run_it_describes():
    config = load_config(HERE / "kd_train.yaml")
    assert config.method == "skd"
    assert config.teacher.path == "/models/me/gemma-7b-sft-summ_1k"
    assert config.student.path == "/models/gemma-2b-sft-summ_1k-20"
    (train,) = config.data.train
    assert (train.path, train.field) == ("data/summ_1k_train.json", "instances")
    assert (train.prompt_field, train.response_field) == ("dialogue", "summary")
    assert (config.data.max_prompt_tokens, config.sampling.max_new_tokens) == (1024, 128)
    assert config.policy.gate.k == 25
    assert config.objective.loss.kind == "forward_kl"
    assert (config.sampling.student.temperature, config.sampling.student.top_p) == (0.5, 0.5)
    assert (config.sampling.teacher.temperature, config.sampling.teacher.top_p) == (0.2, 0.5)
    assert config.sampling.stop_strings == ("\nuser",)
    train = config.train
    assert (train.seed, train.lr, train.batch_size, train.epochs, train.precision) == (20, 1e-5, 8, 3.0, "bf16")
    assert (train.validate_every, train.save_every) == (25, None)
    assert config.output == "runs/summ_1k_skd_25_kl_regular_run"


CHANGES = {
    "task_type": ("gsm_100", lambda c: c.data.train[0].path == "data/gsm_100_train.json"),
    "inp_length": (77, lambda c: c.data.max_prompt_tokens == 77),
    "max_new_tokens": (9, lambda c: c.sampling.max_new_tokens == 9),
    "expected_seq_len": (
        60,
        lambda c: c.policy.gate.k == ScheduleConfig(start=25, end=1, over="response", tokens=60),
    ),
    "kd_type": ("on-policy", lambda c: c.method == "on_policy"),
    "top_k": (7, lambda c: c.policy.gate.k == 7),
    "student_temperature": (1.5, lambda c: c.sampling.student.temperature == 1.5),
    "student_top_p": (0.9, lambda c: c.sampling.student.top_p == 0.9),
    "teacher_temperature": (0.0, lambda c: c.sampling.teacher.temperature == 0.0),
    "teacher_top_p": (0.8, lambda c: c.sampling.teacher.top_p == 0.8),
    "distance_metric": ("jsd", lambda c: c.objective.loss.kind == "jsd"),
    "seed": (0, lambda c: c.train.seed == 0 and c.student.path.endswith("-0")),
    "lr": (1e-4, lambda c: c.train.lr == 1e-4),
    "grad_acc_size": (4, lambda c: c.train.batch_size == 32),
    "num_epoch": (2, lambda c: c.train.epochs == 2),
    "early_stop_epoch": (1, lambda c: c.train.epochs == 1),
    "eval_step": (5, lambda c: c.train.validate_every == 5),
    "mixed_precision": ("no", lambda c: c.train.precision == "fp32" and c.student.dtype == "float32"),
    "checkpoint_template": ("t/{task_type}", lambda c: c.teacher.path == "t/summ_1k"),
    "assistant_checkpoint_template": ("s/{seed}", lambda c: c.student.path == "s/20"),
    "assistant_checkpoint_override": ("mine", lambda c: c.student.path == "mine"),
    "num_processes": (2, lambda c: c.train.batch_size == 2),
    "user": ("you", lambda c: "/you/" in c.teacher.path),
    "debug_enable": (False, lambda c: c.train.save_every == 25),
    "enable_stop_token": (False, lambda c: c.sampling.stop_strings == ()),
    "ckpt_prefix": ("again", lambda c: c.output.endswith("_again")),
}
NOTED = {"max_length": 1152, "tokenizer_name": "x", "gpu_group": "0,1", "main_process_port": 1, "wandb_proj": "p"}


def test_every_key_of_the_released_file_is_known_here():
    keys = {key for section in KD.values() for key in section}
    assert keys <= {key for keys in KNOWN.values() for key in keys}
    assert {key for keys in KNOWN.values() for key in keys} == {*CHANGES, *NOTED, "mixed_ratio", "wandb_key"}


@pytest.mark.parametrize("key", list(CHANGES))
def test_a_changed_key_changes_the_run(tmp_path, key):
    value, holds = CHANGES[key]
    assert not holds(kd(tmp_path))
    assert holds(kd(tmp_path, **{key: value}))


@pytest.mark.parametrize("key", list(NOTED))
def test_a_key_that_changes_nothing_is_named_with_its_line(tmp_path, caplog, key):
    unchanged = kd(tmp_path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        changed = kd(tmp_path, **{key: NOTED[key]})
    assert changed == unchanged
    (note,) = {record.message for record in caplog.records if f".{key} " in record.message}
    assert note.startswith(f"{tmp_path / 'c.yaml'}:")


def test_the_secret_is_refused_by_its_variable_and_not_shown(tmp_path):
    with pytest.raises(ConfigError) as caught:
        kd(tmp_path, wandb_key="0123456789abcdef")
    assert "resource_params.wandb_key is a secret" in str(caught.value)
    assert "set the environment variable WANDB_API_KEY" in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


@pytest.mark.parametrize(
    ("kd_type", "method", "kinds"),
    [
        ("skd", "skd", "interleaved"),
        ("supervised_kd", "supervised_kd", "data_set"),
        ("on-policy", "on_policy", "student"),
        ("mixed", "imitkd", "mixture"),
        ("mixed_skd", "mixed_skd", "mixture"),
        ("mixed_train", "two_stage", "staged"),
        ("seq_kd", "seq_kd", "teacher"),
    ],
)
def test_every_kd_type_is_a_method(tmp_path, kd_type, method, kinds):
    config = kd(tmp_path, kd_type=kd_type)
    assert (config.method, config.policy.kind) == (method, kinds)


def test_mixed_ratio_is_the_students_share(tmp_path):
    for kd_type, kind in (("mixed", "student"), ("mixed_skd", "interleaved")):
        parts = kd(tmp_path, kd_type=kd_type, mixed_ratio=0.3, top_k=9).policy.parts
        assert [(part.weight, part.policy.kind) for part in parts] == [(0.3, kind), (0.7, "data_set")]
    assert parts[0].policy.gate.k == 9
    assert kd(tmp_path, kd_type="mixed").policy.parts[0].weight == 0.5


@pytest.mark.parametrize("task", list(kd_train.TASKS))
def test_every_task_names_its_files(tmp_path, task):
    config = kd(tmp_path, task_type=task)
    assert config.data.train[0].path.startswith("data/")
    assert config.data.validation[0].path.endswith(".json")
    assert config.sampling.stop_strings


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kd_type": "sdk"}, "kd_params.kd_type is 'sdk'; write one of"),
        ({"distance_metric": "mse"}, "kd_params.distance_metric is 'mse', expected one of kl, reverse_kl, jsd"),
        ({"task_type": "poems"}, "task_params.task_type is 'poems'; the tasks of these files are gsm_1k"),
        ({"mixed_precision": "fp16"}, "training_params.mixed_precision is 'fp16', expected one of bf16, no"),
        ({"checkpoint_template": "{user.__class__}"}, 'checkpoint_template holds "{user.__class__}"'),
        ({"mixed_ratio": 2, "kd_type": "mixed"}, "kd_params.mixed_ratio is 2; write a share in [0, 1]"),
        ({"checkpoint_template": None}, "model_params.checkpoint_template is missing"),
        ({"lr": -1}, "train.lr is -1"),
        ({"batch": 3}, "task_params.batch is an unknown key"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_line(tmp_path, changes, text):
    with pytest.raises(ConfigError) as caught:
        kd(tmp_path, **changes)
    assert text in str(caught.value)


def test_the_handbook_file_is_the_run_it_describes():
    config = load_config(HERE / "sft_config_samsum.yaml")
    assert config.method == "sft"
    assert config.teacher is None
    assert (config.student.path, config.student.attention) == ("google/gemma-2b-it", "flash_attention_2")
    assert [(source.id, source.split, source.share) for source in config.data.train] == [
        ("knkarthick/dialogsum", "train", 1.0)
    ]
    assert config.data.validation[0].split == "validation"
    train = config.train
    assert (train.batch_size, train.lr, train.schedule, train.warmup) == (16, 1e-5, "cosine", 0.1)
    assert (train.epochs, train.max_steps, train.seed, train.keep) == (3.0, None, 42, 10)
    assert (train.validate_every, train.save_every, train.precision) == (16, 16, "bf16")
    assert train.gradient_checkpointing
    assert train.trackers == ("tensorboard", "wandb")
    assert config.output == "gemma-2b-it-summ-1k"


SFT_CHANGES = {
    "model_name_or_path": ("m", lambda c: c.student.path == "m"),
    "model_revision": ("abc", lambda c: c.student.revision == "abc"),
    "attn_implementation": ("sdpa", lambda c: c.student.attention == "sdpa"),
    "dataset_mixer": (
        {"../data/gsm_1k": 0.5},
        lambda c: getattr(c.data.train[0], "path", 0) == "../data/gsm_1k_train.json",
    ),
    "do_eval": (False, lambda c: c.data.validation is None),
    "eval_steps": (3, lambda c: c.train.validate_every == 3),
    "eval_strategy": ("epoch", lambda c: c.train.validate_every is None),
    "per_device_train_batch_size": (4, lambda c: c.train.batch_size == 4),
    "gradient_accumulation_steps": (2, lambda c: c.train.batch_size == 32),
    "gradient_checkpointing": (False, lambda c: not c.train.gradient_checkpointing),
    "learning_rate": (1e-3, lambda c: c.train.lr == 1e-3),
    "lr_scheduler_type": ("linear", lambda c: c.train.schedule == "linear"),
    "warmup_ratio": (0.2, lambda c: c.train.warmup == 0.2),
    "weight_decay": (0.1, lambda c: c.train.weight_decay == 0.1),
    "max_grad_norm": (2.0, lambda c: c.train.clip_norm == 2.0),
    "max_seq_length": (99, lambda c: c.data.max_prompt_tokens == 99),
    "max_steps": (7, lambda c: c.train.max_steps == 7),
    "num_train_epochs": (1, lambda c: c.train.epochs == 1),
    "output_dir": ("o", lambda c: c.output == "o"),
    "report_to": (["wandb"], lambda c: c.train.trackers == ("wandb",)),
    "save_steps": (3, lambda c: c.train.save_every == 3),
    "save_strategy": ("epoch", lambda c: c.train.save_every is None),
    "save_total_limit": (1, lambda c: c.train.keep == 1),
    "seed": (0, lambda c: c.train.seed == 0),
}
SFT_REFUSED = ["fp16", "warmup_steps", "load_in_4bit", "load_in_8bit"]
SFT_TOGETHER = {"torch_dtype", "bf16", "evaluation_strategy", "push_to_hub", "use_peft"}
"""Keys that say what another one says, too."""


@pytest.mark.parametrize("key", list(SFT_CHANGES))
def test_a_changed_key_of_the_handbook_changes_the_run(tmp_path, key):
    value, holds = SFT_CHANGES[key]
    assert not holds(sft(tmp_path))
    assert holds(sft(tmp_path, **{key: value}))


@pytest.mark.parametrize("key", SFT_REFUSED)
def test_a_key_of_the_handbook_that_asks_for_more_is_refused(tmp_path, key):
    with pytest.raises(ConfigError, match=f"c.yaml:[0-9]+: {key} asks for|c.yaml:[0-9]+: {key} counts"):
        sft(tmp_path, **{key: True})


def test_every_other_key_of_the_handbook_is_said_to_change_nothing(tmp_path, caplog):
    others = set(handbook._HANDLERS) - set(SFT_CHANGES) - set(SFT_REFUSED) - SFT_TOGETHER
    with caplog.at_level(logging.WARNING):
        changed = sft(tmp_path, **{key: SFT.get(key, True) for key in others})
    assert changed == sft(tmp_path)
    assert {key for key in others if not any(f": {key} " in record.message for record in caplog.records)} == set()


def test_adapters_and_uploads_are_asked_for_by_a_key_of_their_own(tmp_path):
    lora = sft(tmp_path, use_peft=True, lora_r=4, lora_target_modules=["q_proj"]).student.lora
    assert (lora.r, lora.alpha, lora.dropout, lora.targets) == (4, 32.0, 0.05, ("q_proj",))
    assert sft(tmp_path, use_peft=True, lora_alpha=8, lora_target_modules="all-linear").student.lora.targets is None
    hub = sft(tmp_path, push_to_hub=True, hub_model_id="me/student", hub_private_repo=False).hub
    assert (hub.repo, hub.private) == ("me/student", False)
    assert sft(tmp_path, push_to_hub=False, use_peft=False, load_in_4bit=False) == sft(tmp_path)
    assert sft(tmp_path, use_peft=True, load_in_4bit=True).student.quantization == "nf4"
    assert sft(tmp_path, load_in_8bit=True, use_peft=True).student.quantization == "int8"
    with pytest.raises(ConfigError, match=r"c.yaml:[0-9]+: push_to_hub is true and hub_model_id is missing"):
        sft(tmp_path, push_to_hub=True)


def test_precision_is_bf16_by_either_key(tmp_path):
    assert sft(tmp_path, bf16=False, torch_dtype=None, attn_implementation="sdpa").train.precision == "fp32"
    assert sft(tmp_path, bf16=None, torch_dtype="bfloat16").train.precision == "bf16"

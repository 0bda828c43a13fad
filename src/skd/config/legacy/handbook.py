"""SFT configs with the keys of the alignment-handbook, as the code published with the paper uses them, in our terms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, get_args

from skd.config.document import Document, KeyPath
from skd.config.legacy.handlers import chosen, moved, unread, used_elsewhere
from skd.config.legacy.translation import Handler, Translation
from skd.config.schema import Tracker

__all__ = ["is_handbook", "translate"]


TRACKERS: tuple[str, ...] = get_args(Tracker)


def is_handbook(data: Any) -> bool:
    """Whether a config file is one of these."""
    return isinstance(data, Mapping) and "model_name_or_path" in data and "student" not in data


def translate(document: Document) -> Translation:
    """The same run in our terms. Keys that have no meaning here become problems of the new document."""
    translation = Translation(document)
    translation.put("method", "sft", ("model_name_or_path",))
    if not translation.get("dataset_mixer"):
        translation.refuse(("dataset_mixer",), "is missing", "add dataset_mixer: {PATH_OR_HUB_ID: 1.0}", "SKD-C17")
    translation.walk((), _HANDLERS)
    _batch(translation)
    return translation


def _mixer(translation: Translation, source: KeyPath, value: Any) -> None:
    """Names that hold a path separator twice or start like a path are files without their ending, others Hub ids."""
    if not isinstance(value, Mapping) or not value:
        translation.refuse(source, "is no mapping of data sets to shares", "write NAME: 1.0 under it", "SKD-C06")
        return
    parts = [("train", "_train.json", "train"), ("validation", "_vali.json", "validation")]
    for part, suffix, split in parts[: 1 if translation.get("do_eval") is False else 2]:
        sources = [_source(name, share, suffix, split) for name, share in value.items()]
        if part == "validation":
            sources = [{**one, "share": 1.0} for one in sources]
        translation.put(f"data.{part}", sources, source)


def _source(name: str, share: Any, suffix: str, split: str) -> dict[str, Any]:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return {"kind": "file", "path": name + suffix, "share": share}
    return {"kind": "hub", "id": name, "split": split, "share": share}


def _length(translation: Translation, source: KeyPath, value: Any) -> None:
    translation.put("data.max_prompt_tokens", value, source)
    translation.put("data.on_long_prompt", "skip", source)
    translation.note(source, "bounds the prompt here; sequences are neither cut nor packed")


def _steps(translation: Translation, source: KeyPath, value: Any) -> None:
    translation.put("train.max_steps", None if value in (None, -1) else value, source)


def _batch(translation: Translation) -> None:
    """Prompts per optimiser step over all processes."""
    per_device = translation.get("per_device_train_batch_size")
    accumulated = translation.get("gradient_accumulation_steps")
    sizes = [8 if per_device is None else per_device, 1 if accumulated is None else accumulated]
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
        translation.put("train.batch_size", sizes[0], ("per_device_train_batch_size",))
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    translation.put("train.batch_size", sizes[0] * sizes[1] * processes, ("per_device_train_batch_size",))


def _every(path: str, strategy: str) -> Handler:
    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        chosen_strategy = translation.get(strategy) or translation.get("evaluation_strategy")
        translation.put(path, value if chosen_strategy in (None, "steps") else None, source)

    return handle


def _report_to(translation: Translation, source: KeyPath, value: Any) -> None:
    named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    trackers = ["tensorboard"] if "all" in named else [name for name in named if name in TRACKERS]
    translation.put("train.trackers", trackers, source)
    others = [str(name) for name in named if name not in {*TRACKERS, "all", "none"}]
    if others:
        translation.note(source, f"names {', '.join(others)}: there is {', '.join(TRACKERS)}, and metrics.jsonl")


def _remote_code(translation: Translation, source: KeyPath, value: Any) -> None:
    if value:
        translation.note(source, "is not read: code of a model repository is never run")


def _half(translation: Translation, source: KeyPath, value: Any) -> None:
    if value:
        translation.refuse(source, "asks for float16", "write bf16: true")


def _peft(translation: Translation, source: KeyPath, value: Any) -> None:
    if value is not True:
        return
    # What trl takes where a key is left out.
    translation.put("student.lora", {"r": 16, "alpha": 32, "dropout": 0.05}, source)
    for key, ours in (("r", "r"), ("alpha", "alpha"), ("dropout", "dropout"), ("target_modules", "targets")):
        given = translation.get(f"lora_{key}")
        if given is not None:
            translation.put(f"student.lora.{ours}", None if given == "all-linear" else given, (f"lora_{key}",))


def _quantized(value: str, text: str) -> Handler:
    def handle(translation: Translation, source: KeyPath, wanted: Any) -> None:
        if wanted is not True:
            return
        if translation.get("use_peft") is not True:
            translation.refuse(source, "asks for quantised weights, which cannot be trained", "add use_peft: true")
            return
        translation.put("student.quantization", value, source)
        translation.note(source, text)

    return handle


def _push(translation: Translation, source: KeyPath, value: Any) -> None:
    if value is not True:
        return
    if translation.get("hub_model_id") is None:
        translation.refuse(source, "is true and hub_model_id is missing", "add hub_model_id: OWNER/NAME", "SKD-C17")
        return
    translation.put("hub.repo", translation.get("hub_model_id"), ("hub_model_id",))
    if (private := translation.get("hub_private_repo")) is not None:
        translation.put("hub.private", private, ("hub_private_repo",))


def _idle_without(flag: str) -> Handler:
    """Read together with ``flag``, which says whether it counts."""

    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        if translation.get(flag) is not True:
            translation.note(source, f"is not read: {flag} is not true")

    return handle


def _refused(found: str, remedy: str) -> Handler:
    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        if value not in (None, False):
            translation.refuse(source, found, remedy)

    return handle


_HANDLERS: Mapping[str, Handler] = {
    "model_name_or_path": moved("student.path"),
    "model_revision": moved("student.revision"),
    "torch_dtype": chosen("train.precision", {"bfloat16": "bf16", "float32": "fp32", "auto": "fp32"}),
    "attn_implementation": moved("student.attention"),
    "use_flash_attention_2": unread("write attn_implementation: flash_attention_2"),
    "trust_remote_code": _remote_code,
    "dataset_mixer": _mixer,
    "dataset_splits": unread("a file has a train and a vali part, a Hub data set the splits train and validation"),
    "preprocessing_num_workers": unread("tokenising needs no workers"),
    "auto_insert_empty_system_msg": unread("the published script leaves it out, too; data.system sets one"),
    "chat_template": unread("the tokenizer's own is used"),
    "dataset_kwargs": unread("special tokens are added once, by the chat template"),
    "bf16": chosen("train.precision", {True: "bf16", False: "fp32"}),
    "fp16": _half,
    "do_eval": used_elsewhere,
    "eval_strategy": used_elsewhere,
    "evaluation_strategy": used_elsewhere,
    "eval_steps": _every("train.validate_every", "eval_strategy"),
    "per_device_eval_batch_size": unread("memory is set by train.micro_batch_tokens"),
    "per_device_train_batch_size": used_elsewhere,
    "gradient_accumulation_steps": used_elsewhere,
    "gradient_checkpointing": moved("train.gradient_checkpointing"),
    "gradient_checkpointing_kwargs": unread("it is always non-reentrant"),
    "learning_rate": moved("train.lr"),
    "lr_scheduler_type": chosen(
        "train.schedule",
        {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"},
    ),
    "warmup_ratio": moved("train.warmup"),
    "warmup_steps": _refused("counts steps", "write warmup_ratio, a share of all steps"),
    "weight_decay": moved("train.weight_decay"),
    "max_grad_norm": moved("train.clip_norm"),
    "max_seq_length": _length,
    "max_steps": _steps,
    "num_train_epochs": moved("train.epochs"),
    "output_dir": moved("output"),
    "overwrite_output_dir": unread("a run is never overwritten; choose another output_dir"),
    "remove_unused_columns": unread("only the fields that are needed are read"),
    "report_to": _report_to,
    "run_name": unread("a run is named by its directory"),
    "save_only_model": unread("checkpoints always hold what resuming needs"),
    "save_strategy": used_elsewhere,
    "save_steps": _every("train.save_every", "save_strategy"),
    "save_total_limit": moved("train.keep"),
    "seed": moved("train.seed"),
    "log_level": unread("every step is logged"),
    "logging_steps": unread("every step is logged"),
    "logging_strategy": unread("every step is logged"),
    "logging_first_step": unread("every step is logged"),
    "packing": unread("sequences are not packed; micro-batches are filled by token budget"),
    "hub_model_id": _idle_without("push_to_hub"),
    "hub_private_repo": _idle_without("push_to_hub"),
    "hub_strategy": unread("the finished student is pushed, once"),
    "push_to_hub": _push,
    "load_in_4bit": _quantized("nf4", "the base under the adapters is quantised to nf4, without double quantisation"),
    "load_in_8bit": _quantized("int8", "the base under the adapters is quantised to int8 weights by torchao"),
    "use_peft": _peft,
    "lora_r": _idle_without("use_peft"),
    "lora_alpha": _idle_without("use_peft"),
    "lora_dropout": _idle_without("use_peft"),
    "lora_target_modules": _idle_without("use_peft"),
}

"""``kd_train.yaml`` of the code published with the paper (google-research, speculative_kd/config), in our terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skd.config.document import Document, KeyPath
from skd.config.legacy.handlers import chosen, moved, unread, used_elsewhere
from skd.config.legacy.translation import Handler, Translation
from skd.config.methods import ALIASES, METHODS

__all__ = ["is_kd_train", "translate"]


@dataclass(frozen=True)
class _TaskFiles:
    train: str
    validation: str
    stop_strings: tuple[str, ...]
    prompt_field: str = "instruction"
    response_field: str = "response"


_MATH_STOPS = (
    "\n###\nProblem: ",
    "\nSolve the following math problem step-by-step.",
    "\nuser",
    "\n\n\n\n",
    "Solve the following math problem step-by-step.",
)
_DIALOGUE = {"prompt_field": "dialogue", "response_field": "summary"}
TASKS: Mapping[str, _TaskFiles] = {
    "gsm_1k": _TaskFiles("data/gsm_1k_train.json", "data/gsm_1k_vali.json", ("\n\n",)),
    "gsm_100": _TaskFiles("data/gsm_100_train.json", "data/gsm_1k_vali.json", ("\n\n",)),
    "math": _TaskFiles("data/Math_CoT_train.json", "data/Math_CoT_vali.json", _MATH_STOPS),
    "math_1k": _TaskFiles("data/math_train_1k.json", "data/math_vali_1k.json", _MATH_STOPS),
    "summ_1k": _TaskFiles("data/summ_1k_train.json", "data/summ_1k_vali.json", ("\nuser",), **_DIALOGUE),
    "summ_100": _TaskFiles("data/summ_100_train.json", "data/summ_1k_vali.json", ("\nuser",), **_DIALOGUE),
    "mt_1k": _TaskFiles("data/mt_1k_train.json", "data/mt_1k_vali.json", ("\n",)),
    "mt_100": _TaskFiles("data/mt_100_train.json", "data/mt_1k_vali.json", ("\n",)),
}
"""Files and stop strings that the published code has for each task_type."""

_KD_TYPES = {"skd", "supervised_kd", "on-policy", "mixed", "mixed_skd", "mixed_train", "seq_kd"}
_REQUIRED = (
    ("task_params", "task_type"),
    ("kd_params", "kd_type"),
    ("model_params", "checkpoint_template"),
    ("training_params", "seed"),
)


def is_kd_train(data: Any) -> bool:
    """Whether a config file is one of these: it has their sections and none of our keys."""
    return isinstance(data, Mapping) and ("kd_params" in data or "task_params" in data) and "student" not in data


def translate(document: Document) -> Translation:
    """The same run in our terms. Keys that have no meaning here become problems of the new document."""
    translation = Translation(document)
    for section, key in _REQUIRED:
        if translation.get(section, key) is None:
            translation.refuse((section, key), "is missing", f"add {key} under {section}", "SKD-C17")
    translation.walk((), _SECTIONS)
    _precision(translation)
    _batch(translation)
    _output(translation)
    return translation


def _walk(handlers: Mapping[str, Handler]) -> Handler:
    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        translation.walk(source, handlers)

    return handle


def _task(translation: Translation, source: KeyPath, value: Any) -> None:
    task = TASKS.get(value) if isinstance(value, str) else None
    if task is None:
        translation.refuse(source, f"is {value!r:.40}", f"the tasks of these files are {', '.join(TASKS)}", "SKD-C05")
        return
    fields = {"field": "instances", "prompt_field": task.prompt_field, "response_field": task.response_field}
    translation.put("data.train", {"path": task.train, **fields}, source)
    translation.put("data.validation", {"path": task.validation, **fields}, source)
    if translation.get("exec_params", "enable_stop_token"):
        translation.put("sampling.stop_strings", list(task.stop_strings), source)


def _prompt_length(translation: Translation, source: KeyPath, value: Any) -> None:
    translation.put("data.max_prompt_tokens", value, source)
    # The published code cuts such prompts, too; ours keeps the end, where the question is.
    translation.put("data.on_long_prompt", "truncate_left", source)


def _kd_type(translation: Translation, source: KeyPath, value: Any) -> None:
    if value not in _KD_TYPES:
        remedy = f"write one of {', '.join(sorted(_KD_TYPES))}"
        translation.refuse(source, f"is {value!r:.40}", remedy, "SKD-C05")
        return
    translation.put("method", ALIASES.get(value, value), source)
    _mixture(translation, value)


def _mixture(translation: Translation, kd_type: str) -> None:
    """The weights of a mixture, and K of the gate wherever it stands."""
    gate = _gate(translation)
    if kd_type == "skd" and gate is not None:
        translation.put("policy", {"kind": "interleaved", "gate": gate}, ("kd_params", "top_k"))
    if kd_type not in {"mixed", "mixed_skd"}:
        return
    ratio = translation.get("kd_params", "mixed_ratio")
    ratio = 0.5 if ratio is None else ratio
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
        translation.refuse(("kd_params", "mixed_ratio"), f"is {ratio!r:.40}", "write a share in [0, 1]", "SKD-C07")
        return
    sampled = {"kind": "student"} if kd_type == "mixed" else {"kind": "interleaved", "gate": gate or {}}
    parts = [{"weight": ratio, "policy": sampled}, {"weight": 1 - ratio, "policy": {"kind": "data_set"}}]
    translation.put("policy", {"kind": "mixture", "parts": parts}, ("kd_params", "kd_type"))


def _gate(translation: Translation) -> dict[str, Any] | None:
    k, tokens = translation.get("kd_params", "top_k"), translation.get("task_params", "expected_seq_len")
    if k is None:
        return None
    if tokens:
        k = {"start": k, "end": 1, "over": "response", "tokens": tokens}
    return {"kind": "top_k", "k": k}


def _top_k(translation: Translation, source: KeyPath, value: Any) -> None:
    if translation.get("kd_params", "kd_type") not in {"skd", "mixed_skd"} and value:
        translation.note(source, "is not read: only skd and mixed_skd have a gate")


def _distance(translation: Translation, source: KeyPath, value: Any) -> None:
    if translation.get("kd_params", "kd_type") == "seq_kd":
        translation.note(source, "is not read: seq_kd learns by likelihood")
    else:
        chosen("objective.loss", {"kl": "forward_kl", "reverse_kl": "reverse_kl", "jsd": "jsd"})(
            translation, source, value
        )


def _checkpoint(path: str, fields: Mapping[str, tuple[str, str]]) -> Handler:
    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        values = {name: translation.get(*place) for name, place in fields.items()}
        text = translation.filled(value, values, source) if isinstance(value, str) else value
        translation.put(path, {"path": text}, source)

    return handle


def _assistant_template(translation: Translation, source: KeyPath, value: Any) -> None:
    if translation.get("model_params", "assistant_checkpoint_override"):
        translation.note(source, "is not read: assistant_checkpoint_override is given")
        return
    fields = {"task_type": ("task_params", "task_type"), "seed": ("training_params", "seed")}
    _checkpoint("student", fields)(translation, source, value)


def _override(translation: Translation, source: KeyPath, value: Any) -> None:
    if value:
        translation.put("student", {"path": value}, source)


def _epochs(translation: Translation, source: KeyPath, value: Any) -> None:
    early = translation.get("training_params", "early_stop_epoch")
    numbers = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (value, early))
    translation.put("train.epochs", min(value, early) if numbers else value, source)


def _steps_between(translation: Translation, source: KeyPath, value: Any) -> None:
    translation.put("train.validate_every", value, source)
    # In its debugging mode the published code saves nothing on the way.
    debugging = bool(translation.get("exec_params", "debug_enable"))
    translation.put("train.save_every", None if debugging else value, source)


def _precision(translation: Translation) -> None:
    if translation.get("training_params", "mixed_precision") == "bf16":
        for model in ("teacher", "student"):
            if isinstance(translation.new.data.get(model), dict):
                translation.put(f"{model}.dtype", "bfloat16", ("training_params", "mixed_precision"))


def _batch(translation: Translation) -> None:
    """Prompts per optimiser step over all processes: every process takes grad_acc_size of them, one at a time."""
    sizes = [translation.get("training_params", "grad_acc_size"), translation.get("resource_params", "num_processes")]
    known = [1 if size is None else size for size in sizes]
    if all(isinstance(size, int) and not isinstance(size, bool) for size in known):
        source = ("training_params", "grad_acc_size")
        translation.put("train.batch_size", known[0] * known[1], source)


def _output(translation: Translation) -> None:
    kd = {key: translation.get("kd_params", key) for key in ("kd_type", "top_k", "distance_metric")}
    task, prefix = translation.get("task_params", "task_type"), translation.get("exec_params", "ckpt_prefix")
    name = "_".join(str(part) for part in (task, *kd.values(), prefix) if part is not None)
    translation.put("output", f"runs/{name}", ("exec_params", "ckpt_prefix"))


def _gpus(translation: Translation, source: KeyPath, value: Any) -> None:
    translation.note(source, f"is not read: start with CUDA_VISIBLE_DEVICES={value}")


def _processes(translation: Translation, source: KeyPath, value: Any) -> None:
    text = f"sets the global batch only: start the processes with accelerate launch --num_processes {value}"
    translation.note(source, text)


_SECTIONS: Mapping[str, Handler] = {
    "task_params": _walk(
        {
            "task_type": _task,
            "inp_length": _prompt_length,
            "max_new_tokens": moved("sampling.max_new_tokens"),
            "max_length": unread("it is inp_length + max_new_tokens"),
            "expected_seq_len": used_elsewhere,
        }
    ),
    "kd_params": _walk(
        {
            "kd_type": _kd_type,
            "top_k": _top_k,
            "mixed_ratio": used_elsewhere,
            "student_temperature": moved("sampling.student.temperature"),
            "student_top_p": moved("sampling.student.top_p"),
            "teacher_temperature": moved("sampling.teacher.temperature"),
            "teacher_top_p": moved("sampling.teacher.top_p"),
            "distance_metric": _distance,
        }
    ),
    "training_params": _walk(
        {
            "seed": moved("train.seed"),
            "lr": moved("train.lr"),
            "grad_acc_size": used_elsewhere,
            "num_epoch": _epochs,
            "eval_step": _steps_between,
            "early_stop_epoch": used_elsewhere,
            "mixed_precision": chosen("train.precision", {"bf16": "bf16", "no": "fp32"}),
        }
    ),
    "model_params": _walk(
        {
            "checkpoint_template": _checkpoint(
                "teacher", {"user": ("resource_params", "user"), "task_type": ("task_params", "task_type")}
            ),
            "assistant_checkpoint_template": _assistant_template,
            "assistant_checkpoint_override": _override,
            "tokenizer_name": unread("the student's own tokenizer is used, and the teacher's must agree with it"),
        }
    ),
    "resource_params": _walk(
        {
            "gpu_group": _gpus,
            "num_processes": _processes,
            "main_process_port": unread("give it to accelerate launch --main_process_port"),
            "user": used_elsewhere,
            "wandb_proj": unread("for Weights & Biases add train.trackers=[wandb]; metrics are in metrics.jsonl, too"),
        }
    ),
    "exec_params": _walk(
        {"debug_enable": used_elsewhere, "enable_stop_token": used_elsewhere, "ckpt_prefix": used_elsewhere}
    ),
}
assert {ALIASES.get(kd_type, kd_type) for kd_type in _KD_TYPES} <= set(METHODS)

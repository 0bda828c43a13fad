"""An estimate of what a run holds in memory, part by part.

Weights, optimiser, caches and kept hidden states are exact sums of tensor sizes. Activations are counted as a decoder
layer with a gated feed-forward net keeps them for its backward pass: input and normalised input of two norms in float32
and what the products read; queries, keys, values and their result (fused attention keeps no scores); gate, its
activation, the other half and their product. docs/check.md compares the sum with measured peaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from skd.check.environment import Machine, size_text
from skd.check.prompts import longest_responses
from skd.check.report import Part
from skd.config import (
    AdapterOffTeacher,
    PolicyConfig,
    RunConfig,
    ServerTeacher,
    StudentTeacher,
    TeacherModel,
    teachers_of,
)
from skd.config.policy import InterleavedPolicy
from skd.errors import Problem, ResourceError
from skd.objectives.cut import Cut
from skd.sampling.pace import LONGEST_BLOCK
from skd.sampling.packed import worth_packing
from skd.types import Prompts

__all__ = ["BYTES", "TEACHER", "Estimate", "check_memory", "estimate", "estimate_all", "inner_size", "num_parameters"]

BYTES = {"float32": 4, "bfloat16": 2, "fp32": 4, "bf16": 2, "fp16": 2}
_LIBRARIES = 50 * 10**6
"""Buffers of the libraries; measured."""
_GAPS = 1.5
"""What the C library keeps of freed pieces, in sizes of what the largest layer holds at once; measured."""
TEACHER = "teacher weights"
_JUDGED_ROWS = 8
"""Float32 rows [V] per token while drafts are judged and replaced."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by part. ``fixed`` are there all the time; of the ``phases`` there is one at a time."""

    fixed: Mapping[str, int]
    phases: Sequence[Mapping[str, int]]
    processes: int | None = None
    """That many share the run in shards, and this is what one of them holds."""

    @property
    def largest(self) -> Mapping[str, int]:
        """The parts of the phase that takes most."""
        return max(self.phases, key=lambda phase: sum(phase.values()))

    @property
    def peak(self) -> int:
        return sum(self.fixed.values()) + sum(self.largest.values())

    def text(self) -> str:
        """Total and parts, largest first, without those that are nothing."""
        parts = {**self.fixed, **self.largest}
        shown = sorted((item for item in parts.items() if item[1]), key=lambda item: -item[1])
        where = "" if self.processes is None else f" of one of {self.processes} processes"
        return f"about {size_text(self.peak)} at the peak{where}: " + ", ".join(
            f"{name} {size_text(n)}" for name, n in shown
        )


def num_parameters(model: PreTrainedModel, *, trained: bool = False) -> int:
    """Parameters of a model, tied ones once; or only those that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trained)


def estimate(
    config: RunConfig, student: PreTrainedModel, teacher: PreTrainedModel | None, prompts: Prompts
) -> Estimate:
    """What a run of ``config`` with these models (on any device, meta too) and training prompts would hold.

    ``teacher`` is the student where the teacher is made of it.
    """
    trained = num_parameters(student, trained=True)
    width, narrow = BYTES[config.student.dtype], config.student.quantization
    # Where the student is quantised, its copy shares what is.
    copied = width * (num_parameters(student) - (0 if narrow is None else _quantizable(student)))
    fixed = {
        "student weights": _weight_bytes(student, narrow, 4),
        "optimiser": 8 * trained,
        "sampling copy of the student": 0 if config.student.dtype == "float32" else copied,
    }
    training = {
        "gradients": 4 * trained,
        "activations": _activations(config, student, prompts),
        "loss": _loss(config, student, teacher, prompts),
    }
    largest = max(_transient(model) for model in (student, teacher) if model is not None)
    gaps = int(_GAPS * 4 * largest * _micro_batch(config, prompts))
    always = {"libraries": _LIBRARIES, "gaps between pieces": gaps}
    readers = [_Reader(student, config.student.dtype, prompts)]
    phases = [training]
    if teacher is not None:
        dtype = config.teacher.dtype if isinstance(config.teacher, TeacherModel) else "float32"
        read = prompts if prompts.teacher_ids is None else replace(prompts, ids=prompts.teacher_ids)
        readers.append(_Reader(teacher, dtype, read))
        shared = isinstance(config.teacher, StudentTeacher | AdapterOffTeacher)
        fixed[TEACHER] = (
            0
            if shared
            else _weight_bytes(
                teacher,
                config.teacher.quantization if isinstance(config.teacher, TeacherModel) else None,
                BYTES[dtype],
            )
        )
        always["kept teacher states"] = BYTES[dtype] * _response_tokens(config, prompts) * _hidden_size(teacher)
        fixed["kept prompts"] = readers[-1].kept(config.sampling.prompt_cache_mb)
        phases.append({"teacher's forward": BYTES[dtype] * _transient(teacher) * _micro_batch(config, read)})
    fixed["kept packed weights"], fleeting = _packed(config, readers)
    phases.append({**_writing(config, readers), "packed weights": fleeting})
    return Estimate(fixed, [always | phase for phase in phases])


def estimate_all(config: RunConfig, built: Mapping[str, PreTrainedModel], prompts: Prompts) -> Estimate:
    """``estimate`` with the models of a config by their key. Several teachers are all in memory and write in turn."""
    student, found = built["student"], []
    for key, one in teachers_of(config.teacher).items() or [("", None)]:
        made = not isinstance(one, TeacherModel | ServerTeacher | None)
        alone = config.model_copy(update={"teacher": one})
        found.append(estimate(alone, student, student if made else built.get(key), prompts))
    fixed = {part: max(each.fixed.get(part, 0) for each in found) for each in found for part in each.fixed}
    weights = sum(each.fixed.get(TEACHER, 0) for each in found)
    return Estimate({**fixed, TEACHER: weights}, [phase for each in found for phase in each.phases])


@dataclass(frozen=True)
class _Reader:
    """A model that takes part in sampling, and the prompts as it reads them."""

    model: PreTrainedModel
    dtype: str
    prompts: Prompts

    @property
    def longest_prompt(self) -> int:
        return max((len(ids) for ids in self.prompts.ids), default=0)

    def cache(self, rows: int, new_tokens: int) -> int:
        """Bytes of keys and values."""
        return rows * (self.longest_prompt + new_tokens) * self._per_token

    def kept(self, megabytes: int) -> int:
        """Bytes of keys and values of all prompts, as far as they fit."""
        return min(megabytes * 10**6, sum(map(len, self.prompts.ids)) * self._per_token)

    @property
    def _per_token(self) -> int:
        shape = self.model.config.get_text_config()
        _, key_heads, size = _heads(shape)
        return int(shape.num_hidden_layers * 2 * key_heads * size * BYTES[self.dtype])

    @property
    def multiplied(self) -> int:
        """Bytes of the linear layers and the head."""
        head = self.model.get_output_embeddings()
        return BYTES[self.dtype] * (_quantizable(self.model) + (0 if head is None else head.weight.numel()))

    def read_in(self, rows: int) -> int:
        """Bytes inside one layer while the prompts of all rows go through it."""
        return rows * self.longest_prompt * _transient(self.model) * BYTES[self.dtype]


def _hidden_size(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().hidden_size)


def _writing(config: RunConfig, readers: Sequence[_Reader]) -> dict[str, int]:
    """While responses are sampled: caches, prompts as they are read in, and the distributions of one block."""
    if config.writers == {"data_set"}:
        return {}
    rows = min(config.sampling.slots, _responses(config))
    judged = rows * _block(config.policy)
    return {
        "caches": sum(reader.cache(rows, config.sampling.max_new_tokens) for reader in readers),
        "prompts read in": max(reader.read_in(rows) for reader in readers),
        "distributions": _JUDGED_ROWS * 4 * judged * readers[0].model.config.get_text_config().vocab_size,
    }


def _packed(config: RunConfig, readers: Sequence[_Reader]) -> tuple[int, int]:
    """Copies of what is multiplied while responses are written, on a CPU: those that stay, and those that go with the
    rollout; see ``skd.sampling.packed``."""
    if torch.cuda.is_available() or config.train.gather == "layer":
        return 0, 0
    if not worth_packing(num_parameters(reader.model) for reader in readers):
        return 0, 0
    room = config.sampling.packed_mb * 10**6
    student = readers[0].multiplied if config.writers & {"student", "interleaved"} else 0
    teacher = readers[1].multiplied if config.writers & {"teacher", "interleaved"} and len(readers) > 1 else 0
    frozen = isinstance(config.teacher, TeacherModel) and config.train.sharding == "none"
    if frozen and sum(reader.multiplied for reader in readers) <= room:
        return teacher, student
    return 0, min(room, student + teacher)


def _weight_bytes(model: PreTrainedModel, quantization: str | None, width: int) -> int:
    """Those of its weights of ``width`` bytes; of what is quantised one or half a byte each."""
    bits = {"int8": 8, "nf4": 4}.get(quantization or "", 8 * width)
    narrow = _quantizable(model)
    return (num_parameters(model) - narrow) * width + narrow * bits // 8


def _quantizable(model: PreTrainedModel) -> int:
    """Weights of the linear layers but the head and adapters."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    head = model.get_output_embeddings()
    return sum(layer.weight.numel() for name, layer in layers.items() if layer is not head and "lora_" not in name)


def _longest_response(config: RunConfig, prompts: Prompts) -> int:
    return max(longest_responses(config, prompts), default=0)


def _longest_row(config: RunConfig, prompts: Prompts) -> int:
    return max((len(ids) for ids in prompts.ids), default=0) + _longest_response(config, prompts)


def _responses(config: RunConfig) -> int:
    repeated = 1 if config.writers == {"data_set"} else config.sampling.responses_per_prompt
    return config.train.batch_size * repeated


def _response_tokens(config: RunConfig, prompts: Prompts) -> int:
    """Most response tokens of one optimiser step."""
    return _responses(config) * _longest_response(config, prompts)


def _micro_batch(config: RunConfig, prompts: Prompts) -> int:
    """Most padded tokens of one forward: the budget, or fewer when a whole step is smaller."""
    row = _longest_row(config, prompts)
    return max(row, min(config.train.micro_batch_tokens, row * _responses(config)))


def _activations(config: RunConfig, student: PreTrainedModel, prompts: Prompts) -> int:
    """What the forward keeps, and the gradients inside the layer that goes backward."""
    shape = student.config.get_text_config()
    width, longest = BYTES[config.train.precision], _longest_row(config, prompts)
    layer = _layer(student, width, longest if config.student.attention == "eager" else 0)
    layers = int(shape.num_hidden_layers)
    kept = 4 * _hidden_size(student) * layers + layer if config.train.gradient_checkpointing else layer * layers
    return _micro_batch(config, prompts) * (kept + width * _transient(student))


def _block(policy: PolicyConfig) -> int:
    """Tokens of a row that are judged at once: the largest block of any policy inside."""
    if isinstance(policy, InterleavedPolicy):
        return policy.block or LONGEST_BLOCK
    return max((_block(part.policy) for part in getattr(policy, "parts", ())), default=1)


def _layer(model: PreTrainedModel, width: int, scores: int) -> int:
    """Bytes that a layer keeps per token; see the top of this module."""
    shape = model.config.get_text_config()
    heads, key_heads, size = _heads(shape)
    norms = 2 * shape.hidden_size * (4 + 4 + width)
    attention = 2 * (heads + key_heads) * size + 2 * heads * scores
    return int(norms + width * (attention + 4 * inner_size(shape)))


def _transient(model: PreTrainedModel) -> int:
    """Numbers per token that one layer holds at once, besides what it keeps."""
    shape = model.config.get_text_config()
    return 3 * inner_size(shape) + 2 * int(shape.hidden_size)


def _heads(shape: Any) -> tuple[int, int, int]:
    """Heads of queries, heads of keys, size of a head."""
    heads = shape.num_attention_heads
    size = getattr(shape, "head_dim", None) or shape.hidden_size // heads
    return heads, getattr(shape, "num_key_value_heads", None) or heads, size


def inner_size(shape: Any) -> int:
    """Width of the feed-forward net; GPT-2 style configs mean four times the hidden size where they say nothing."""
    return int(getattr(shape, "intermediate_size", None) or getattr(shape, "n_inner", None) or 4 * shape.hidden_size)


def _loss(config: RunConfig, student: PreTrainedModel, teacher: PreTrainedModel | None, prompts: Prompts) -> int:
    """A chunk of products with the heads, the head's gradient, and in 16 bits its last summand and the heads cast."""
    vocab_size = int(student.config.get_text_config().vocab_size)
    tokens = min(_response_tokens(config, prompts), _micro_batch(config, prompts))
    cut = Cut.of(vocab_size, "cuda" if torch.cuda.is_available() else "cpu")
    heads = 4 * _hidden_size(student)
    if config.train.precision != "fp32":
        heads += 2 * (2 * _hidden_size(student) + (_hidden_size(teacher) if teacher is not None else 0))
    return cut.num_bytes(vocab_size, tokens, with_teacher=teacher is not None) + vocab_size * heads


def check_memory(part: Part, found: Estimate, machine: Machine) -> None:
    """Print the estimate. What is certain and does not fit is an error, what is estimated a warning (SKD-M22)."""
    free, where = machine.ram_free, "memory"
    if machine.gpu_free is not None and _torch_has_cuda():
        free, where = machine.gpu_free, f"memory of {machine.gpus[0]}"
    part.facts.append(f"{found.text()}; {size_text(free)} free")
    certain = sum(found.fixed.values())
    remedy = (
        "lower train.micro_batch_tokens or sampling.slots, set train.gradient_checkpointing: true or teacher.dtype: "
        "bfloat16, or take a smaller model"
    )
    # Shards of one process: more will be started.
    if certain > free and found.processes != 1:
        text = f"weights and optimiser alone take {size_text(certain)}, and {size_text(free)} of {where} are free"
        part.errors.append(ResourceError(Problem("SKD-M22", "memory", text, remedy)))
    elif found.peak > free:
        text = f"the run may need {size_text(found.peak)}, and {size_text(free)} of {where} are free"
        part.warnings.append(Problem("SKD-M22", "memory", text, remedy))


def _torch_has_cuda() -> bool:
    return torch.version.cuda is not None

"""An estimate of what a run holds in memory, part by part.

Weights, optimiser, caches and kept hidden states are exact sums of tensor sizes. Activations are estimated as 17
numbers per token, layer and hidden unit (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, without the attention
scores, which fused attention does not keep), with gradient checkpointing as one number and one layer in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from skd.check.environment import Machine, size_text
from skd.check.prompts import longest_responses
from skd.check.report import Part
from skd.config import RunConfig, StudentTeacher, TeacherModel
from skd.errors import Problem, ResourceError
from skd.objectives.chunked import DEFAULT_BUDGET_BYTES
from skd.types import Prompts

__all__ = ["Estimate", "check_memory", "estimate", "num_parameters"]

_BYTES = {"float32": 4, "bfloat16": 2, "fp32": 4, "bf16": 2}
_ACTIVATIONS = 17
"""Numbers kept per token, layer and hidden unit for the backward pass."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by part. ``fixed`` are there all the time; of ``rollout`` and ``training`` only the larger at once."""

    fixed: Mapping[str, int]
    rollout: Mapping[str, int]
    training: Mapping[str, int]

    @property
    def peak(self) -> int:
        return sum(self.fixed.values()) + max(sum(self.rollout.values()), sum(self.training.values()))

    def text(self) -> str:
        """Total and parts, largest first, without those that are nothing."""
        writes = sum(self.rollout.values()) > sum(self.training.values())
        parts = {**self.fixed, **(self.rollout if writes else self.training)}
        shown = sorted((item for item in parts.items() if item[1]), key=lambda item: -item[1])
        return f"about {size_text(self.peak)} at the peak: " + ", ".join(f"{name} {size_text(n)}" for name, n in shown)


def num_parameters(model: PreTrainedModel) -> int:
    """Parameters of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def estimate(
    config: RunConfig, student: PreTrainedModel, teacher: PreTrainedModel | None, prompts: Prompts
) -> Estimate:
    """What a run of ``config`` with these models (on any device, meta too) and training prompts would hold.

    ``teacher`` is the student where the teacher is made of it.
    """
    weights = num_parameters(student)
    copied = config.student.dtype != "float32"
    fixed = {
        "student weights": 4 * weights,
        "gradients": 4 * weights,
        "optimiser": 8 * weights,
        "sampling copy of the student": _BYTES[config.student.dtype] * weights if copied else 0,
    }
    kept = 0
    dtype = config.teacher.dtype if isinstance(config.teacher, TeacherModel) else "float32"
    if teacher is not None:
        shared = isinstance(config.teacher, StudentTeacher)
        fixed["teacher weights"] = 0 if shared else _BYTES[dtype] * num_parameters(teacher)
        kept = _BYTES[dtype] * _response_tokens(config, prompts) * teacher.config.get_text_config().hidden_size
    training = {
        "activations": _activations(config, student, prompts),
        "loss": _loss(config, student, prompts),
        "kept teacher states": kept,
    }
    rollout = {}
    if config.writers != {"data_set"}:
        rollout = {"student cache": _cache(config, student, config.student.dtype, prompts)}
        if teacher is not None:
            read = prompts if prompts.teacher_ids is None else replace(prompts, ids=prompts.teacher_ids)
            rollout["teacher cache"] = _cache(config, teacher, dtype, read)
        rollout["kept teacher states"] = kept
    return Estimate(fixed, rollout, training)


def _longest_response(config: RunConfig, prompts: Prompts) -> int:
    return max(longest_responses(config, prompts), default=0)


def _responses(config: RunConfig) -> int:
    repeated = 1 if config.writers == {"data_set"} else config.sampling.responses_per_prompt
    return config.train.batch_size * repeated


def _response_tokens(config: RunConfig, prompts: Prompts) -> int:
    """Most response tokens of one optimiser step."""
    return _responses(config) * _longest_response(config, prompts)


def _micro_batch(config: RunConfig, prompts: Prompts) -> int:
    """Most padded tokens of one forward: the budget, or fewer when a whole step is smaller."""
    row = max((len(ids) for ids in prompts.ids), default=0) + _longest_response(config, prompts)
    return max(row, min(config.train.micro_batch_tokens, row * _responses(config)))


def _activations(config: RunConfig, student: PreTrainedModel, prompts: Prompts) -> int:
    shape = student.config.get_text_config()
    per_layer = _ACTIVATIONS * shape.hidden_size
    kept = shape.hidden_size * shape.num_hidden_layers + per_layer
    per_token = kept if config.train.gradient_checkpointing else per_layer * shape.num_hidden_layers
    return int(_BYTES[config.train.precision] * _micro_batch(config, prompts) * per_token)


def _loss(config: RunConfig, student: PreTrainedModel, prompts: Prompts) -> int:
    shape = student.config.get_text_config()
    logits = 16 * 4 * shape.vocab_size * _response_tokens(config, prompts)
    return int(min(DEFAULT_BUDGET_BYTES, logits) + 4 * shape.vocab_size * shape.hidden_size)


def _cache(config: RunConfig, model: PreTrainedModel, dtype: str, prompts: Prompts) -> int:
    shape = model.config.get_text_config()
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    longest = max((len(ids) for ids in prompts.ids), default=0) + config.sampling.max_new_tokens
    slots = min(config.sampling.slots, _responses(config))
    return int(slots * longest * shape.num_hidden_layers * 2 * heads * size * _BYTES[dtype])


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
    if certain > free:
        text = f"weights and optimiser alone take {size_text(certain)}, and {size_text(free)} of {where} are free"
        part.errors.append(ResourceError(Problem("SKD-M22", "memory", text, remedy)))
    elif found.peak > free:
        text = f"the run may need {size_text(found.peak)}, and {size_text(free)} of {where} are free"
        part.warnings.append(Problem("SKD-M22", "memory", text, remedy))


def _torch_has_cuda() -> bool:
    import torch

    return torch.version.cuda is not None

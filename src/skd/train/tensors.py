"""Weights and AdamW state as tensors by parameter name, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from skd.errors import CheckpointError, Problem
from skd.models import Pair

__all__ = [
    "average_tensors",
    "checked_moments",
    "checked_weights",
    "optimizer_tensors",
    "restore_average",
    "restore_optimizer",
    "restore_student",
    "student_tensors",
]

_AVERAGE = "average."
_SLOTS = ("exp_avg", "exp_avg_sq", "step")


def student_tensors(student: nn.Module) -> dict[str, Tensor]:
    """Every trained parameter by name, tied ones once; of a student with adapters, those alone. Shares memory."""
    return {name: parameter.detach() for name, parameter in _trained(student).items()}


def restore_student(student: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy saved weights into the model. Raises CheckpointError (SKD-K05) unless names and shapes are the model's."""
    _copy(checked_weights(student, tensors, source))


def checked_weights(
    student: nn.Module, tensors: Mapping[str, Tensor], source: Path
) -> list[tuple[nn.Parameter, Tensor]]:
    """Each trained parameter with its saved weight; raises as ``restore_student`` does."""
    return _checked(_trained(student), tensors, source)


def _trained(student: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}


def _checked(
    parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], source: Path
) -> list[tuple[nn.Parameter, Tensor]]:
    _require_same(set(tensors), set(parameters), source, "weights")
    for name, parameter in parameters.items():
        _require_shape(name, tensors[name], parameter, source)
    return [(parameter, tensors[name]) for name, parameter in parameters.items()]


@torch.no_grad()
def _copy(pairs: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, tensor in pairs:
        parameter.copy_(tensor)


def average_tensors(pair: Pair) -> dict[str, Tensor]:
    """The weights of a teacher that is an average of the student, as ``average.NAME``; none of any other teacher."""
    if pair.own_teacher is None or not pair.own_teacher.has_weights:
        return {}
    return {f"{_AVERAGE}{name}": parameter.detach() for name, parameter in _averaged(pair).items()}


def _averaged(pair: Pair) -> dict[str, nn.Parameter]:
    """The parameters of a moving average that move: those that the student trains."""
    parameters = dict(pair.required_teacher.named_parameters())
    return {name: parameters[name] for name in _trained(pair.student)}


def restore_average(pair: Pair, tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Put a saved average back, if there is one; returns the tensors that are not its own. Raises CheckpointError."""
    saved = {name.removeprefix(_AVERAGE): tensors[name] for name in tensors if name.startswith(_AVERAGE)}
    if average_tensors(pair):
        _copy(_checked(_averaged(pair), saved, source))
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_AVERAGE)}


def optimizer_tensors(optimizer: AdamW, student: nn.Module) -> dict[str, Tensor]:
    """AdamW's state as ``SLOT.NAME``; parameters that never had a gradient have none."""
    return {
        f"{slot}.{name}": optimizer.state[parameter][slot].detach()
        for name, parameter in student.named_parameters()
        if parameter in optimizer.state
        for slot in _SLOTS
    }


def restore_optimizer(
    optimizer: AdamW,
    student: nn.Module,
    tensors: Mapping[str, Tensor],
    source: Path,
    like: Callable[[Tensor, Tensor], Tensor] = lambda moment, parameter: moment.to(parameter.device, copy=True),
) -> None:
    """Put saved AdamW state back, each moment as ``like(moment, parameter)``.

    Raises CheckpointError (SKD-K05) on a name that the model lacks, or half a state.
    """
    parameters = dict(student.named_parameters())
    for name, saved in checked_moments(parameters, tensors, source):
        parameter = parameters[name]
        # AdamW keeps its step counter on the CPU, unless it is captured or fused on another device; ours is neither.
        optimizer.state[parameter] = {
            "step": saved["step"].clone(),
            **{slot: like(saved[slot], parameter) for slot in ("exp_avg", "exp_avg_sq")},
        }


def checked_moments(
    parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], source: Path
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Saved AdamW state as (name, slot -> tensor), one weight after the other; raises as ``restore_optimizer`` does."""
    saved = {name.partition(".")[2] for name in tensors}
    _require_same(
        {f"{slot}.{name}" for name in saved & set(parameters) for slot in _SLOTS}, set(tensors), source, "state"
    )
    for name in sorted(saved):
        for slot in ("exp_avg", "exp_avg_sq"):
            _require_shape(name, tensors[f"{slot}.{name}"], parameters[name], source)
        yield name, {slot: tensors[f"{slot}.{name}"] for slot in _SLOTS}


def _require_same(found: set[str], expected: set[str], source: Path, what: str) -> None:
    different = sorted(found ^ expected)
    if different:
        raise CheckpointError(
            Problem(
                "SKD-K05",
                str(source),
                f"{len(different)} {what} of the checkpoint and of the model do not match, first {different[0]}",
                "resume with the model that the run was started with",
            )
        )


def _require_shape(name: str, found: Tensor, expected: Tensor, source: Path) -> None:
    if found.shape != expected.shape:
        raise CheckpointError(
            Problem(
                "SKD-K05",
                str(source),
                f"{name} has shape {tuple(found.shape)}, the model has {tuple(expected.shape)}",
                "resume with the model that the run was started with",
            )
        )

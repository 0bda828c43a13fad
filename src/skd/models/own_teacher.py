"""Teachers that are made of the student itself (self-distillation)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from skd.models.adapters import frozen, take_out

__all__ = ["AdapterOff", "CurrentStudent", "MovingAverage", "OwnTeacher"]


class OwnTeacher(Protocol):
    """How a teacher is made of the student, and how it follows it."""

    @property
    def title(self) -> str:
        """What it is, for the record of a run."""
        ...

    @property
    def has_weights(self) -> bool:
        """Whether its weights are not the student's, so that a checkpoint must hold them."""
        ...

    @property
    def frozen(self) -> bool:
        """Whether its weights stay what they were at the start."""
        ...

    def made_from(self, student: PreTrainedModel) -> PreTrainedModel:
        """The frozen teacher of a student of float32 weights."""
        ...

    def follow(self, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
        """Called after every update of the student."""
        ...


@dataclass(frozen=True)
class CurrentStudent:
    """The student as it is at each step, in the same memory; it knows more only through a prompt of its own.

    Tensors that take the place of the student's parameters are not followed: updates must be made in place.
    """

    title = "the student's current weights"
    has_weights = False
    frozen = False

    def made_from(self, student: PreTrainedModel) -> PreTrainedModel:
        """A second model over the student's weights: no gradient, no dropout, a config of its own."""
        views = {
            id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
            for parameter in student.parameters()
            if parameter.requires_grad
        }
        teacher: PreTrainedModel = copy.deepcopy(student, frozen(student) | views)
        teacher.eval()
        return teacher

    def follow(self, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
        """Nothing to do: the weights are the same."""


@dataclass(frozen=True)
class AdapterOff:
    """The student with its adapters off, in the same memory: what it was before it was trained."""

    title = "the student with its adapters off"
    has_weights = False
    frozen = True

    def made_from(self, student: PreTrainedModel) -> PreTrainedModel:
        """A second model over the weights under the adapters."""
        return take_out(CurrentStudent().made_from(student))

    def follow(self, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
        """Nothing to do: the weights under the adapters stay as they are."""


@dataclass(frozen=True)
class MovingAverage:
    """The exponential moving average of the student's weights, which starts as the student.

    After each update it is ``decay x average + (1 - decay) x student`` (the mean teacher of Tarvainen and Valpola,
    2017, arXiv 1703.01780). ``decay``: in [0, 1).
    """

    decay: float
    has_weights = True
    frozen = False

    @property
    def title(self) -> str:
        """What it is, for the record of a run."""
        return f"the moving average of the student, decay {self.decay:g}"

    def made_from(self, student: PreTrainedModel) -> PreTrainedModel:
        """A copy of the student, which shares what is not trained."""
        teacher: PreTrainedModel = copy.deepcopy(student, frozen(student))
        teacher.requires_grad_(False).eval()
        return teacher

    @torch.no_grad()
    def follow(self, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
        """Move towards the student's weights."""
        averaged = dict(teacher.named_parameters())
        trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
        torch._foreach_lerp_([averaged[name] for name in trained], list(trained.values()), 1.0 - self.decay)

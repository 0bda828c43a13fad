"""How the student's training is spread over processes: whole in each, or in shards (FSDP2).

Sampling, validation, checkpoints and the export read ``pair.student``, which is whole in every process. What the
optimiser updates is ``learner.student``: the same model, or one whose weights, gradients and moments are cut into
shards and whose new weights are gathered into the whole one after each update.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from skd.models import Pair
from skd.train.batch import StudentLoss

__all__ = ["MakeLoss", "Replicated", "Sharded", "Spread"]

MakeLoss = Callable[[Pair], StudentLoss]


class Spread(Protocol):
    """See the module docstring."""

    @property
    def learner(self) -> Pair:
        """The pair whose student the optimiser updates."""
        ...

    @property
    def module(self) -> nn.Module:
        """The learner's loss in the wrapper that brings gradients together."""
        ...

    def backward_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Around the forward and backward of one micro-batch; ``last`` of its step."""
        ...

    def grad_norm(self) -> float:
        """Of all gradients, over all processes."""
        ...

    def clip(self, clip_norm: float, grad_norm: float) -> None:
        """Scale the gradients down to a norm of ``clip_norm``."""
        ...

    def updated(self) -> None:
        """Bring the whole student, and what follows it, up to date."""
        ...

    def reloaded(self) -> None:
        """Take over the weights of the whole student."""
        ...

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the optimiser without shards. Every process must call it."""
        ...

    def like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """A copy of a whole tensor that lies where ``parameter`` lies, cut as it is."""
        ...


@dataclass(frozen=True)
class Replicated:
    """Everything whole in every process; gradients are averaged (DDP)."""

    learner: Pair
    module: nn.Module
    accelerator: Accelerator

    @classmethod
    def over(cls, pair: Pair, make_loss: MakeLoss, accelerator: Accelerator) -> Replicated:
        """The pair itself learns."""
        return cls(pair, accelerator.prepare_model(make_loss(pair)), accelerator)

    def backward_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Only the last backward of a step averages."""
        context: AbstractContextManager[object] = nullcontext() if last else self.accelerator.no_sync(self.module)
        return context

    def grad_norm(self) -> float:
        """They are equal in every process."""
        return float(get_total_norm(_gradients(self.learner.student)))

    def clip(self, clip_norm: float, grad_norm: float) -> None:
        """By torch."""
        clip_grads_with_norm_(self.learner.student.parameters(), clip_norm, torch.tensor(grad_norm))

    def updated(self) -> None:
        """The whole student is the one that was updated."""
        self.learner.updated()

    def reloaded(self) -> None:
        """Nothing to do."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """They are."""
        return dict(tensors)

    def like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """On its device."""
        return tensor.to(parameter.device, copy=True)


@dataclass(frozen=True)
class Sharded:
    """Weights, gradients and moments of the learner in as many shards as there are processes (FSDP2, Zhao et al., 2023,
    arXiv 2304.11277; torch.distributed.fsdp.fully_shard). One layer is gathered at a time, in forward and backward."""

    pair: Pair
    learner: Pair
    module: nn.Module

    @classmethod
    def over(cls, pair: Pair, make_loss: MakeLoss, accelerator: Accelerator) -> Sharded:
        """A sharded copy of the pair's student learns."""
        student = copy.deepcopy(pair.student)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        units = set(student._no_split_modules or ())
        for layer in [module for module in student.modules() if type(module).__name__ in units]:
            fully_shard(layer, mesh=mesh)
        learner = replace(pair, student=student)
        # The loss is the root, so that embeddings and head are gathered for as long as body, head and loss run.
        loss = make_loss(learner)
        fully_shard(loss, mesh=mesh)
        return cls(pair, learner, loss)

    def backward_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Every backward sums: gradients that wait for others would have to be kept whole."""
        return nullcontext()

    def grad_norm(self) -> float:
        """Over the shards of all processes."""
        norm = get_total_norm(_gradients(self.learner.student))
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def clip(self, clip_norm: float, grad_norm: float) -> None:
        """As torch does."""
        factor = min(clip_norm / (grad_norm + 1e-6), 1.0)
        for gradient in _gradients(self.learner.student):
            gradient.mul_(factor)

    @torch.no_grad()
    def updated(self) -> None:
        """Gather the new weights."""
        whole = dict(self.pair.student.named_parameters())
        for name, parameter in self.learner.student.named_parameters():
            if parameter.requires_grad:
                whole[name].copy_(_full(parameter))
        self.pair.updated()

    @torch.no_grad()
    def reloaded(self) -> None:
        """Each process takes its shards."""
        whole = dict(self.pair.student.named_parameters())
        for name, parameter in self.learner.student.named_parameters():
            parameter.copy_(self.like(whole[name], parameter))

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gathered."""
        return {name: _full(tensor) for name, tensor in tensors.items()}

    def like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """This process's shard of it."""
        assert isinstance(parameter, DTensor)
        tensor = tensor.detach().to(parameter.device)
        # No data come from another process: the whole tensor is in each.
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _gradients(student: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in student.parameters() if parameter.grad is not None]

"""Training in shards by torch itself (FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from skd.config import TrainConfig
from skd.models import Pair, layers_of
from skd.train.lockstep import GATHERINGS
from skd.train.optimizer import adamw, set_lr
from skd.train.pieces import Weights
from skd.train.spread import MakeLoss, gradients_of, on_main
from skd.train.tensors import checked_weights, optimizer_tensors, restore_optimizer
from skd.train.whole import Models

__all__ = ["Sharded"]


@dataclass(frozen=True)
class Sharded:
    """Weights, gradients and moments of the learner in as many shards as there are processes (FSDP2, Zhao et al., 2023,
    arXiv 2304.11277; torch.distributed.fsdp.fully_shard). One layer is gathered at a time, in forward and backward."""

    pair: Pair
    learner: Pair
    module: nn.Module
    optimizer: AdamW
    models: Models
    accelerator: Accelerator
    clip_norm: float | None

    @classmethod
    def over(cls, pair: Pair, make_loss: MakeLoss, settings: TrainConfig, accelerator: Accelerator) -> Sharded:
        """A sharded copy of the pair's student learns."""
        models = GATHERINGS[settings.gather](pair, accelerator.device)
        student = copy.deepcopy(pair.student)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for layer in layers_of(student):
            fully_shard(layer, mesh=mesh)
        learner = replace(pair, student=student)
        # The loss is the root, so that embeddings and head are gathered for as long as body, head and loss run.
        loss = make_loss(learner)
        fully_shard(loss, mesh=mesh)
        models.pieces.empty()
        return cls(pair, learner, loss, adamw(student, settings), models, accelerator, settings.clip_norm)

    def visit(self) -> AbstractContextManager[None]:
        """As ``train.gather`` says."""
        return self.models.visit(self._weights())

    def read_by_main(self) -> AbstractContextManager[None]:
        """In the host's memory."""
        return self.models.pieces.read_by_main(self._weights())

    def _weights(self) -> Weights:
        shards = dict(self.learner.student.named_parameters())
        return lambda name, dtype: _full(shards[name].detach().to(dtype))

    def backward_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Every backward sums: gradients that wait for others would have to be kept whole."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """By torch."""
        loss.backward()

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Gathered."""
        return ((name, _full(gradient)) for name, gradient in gradients_of(self.learner.student))

    def grad_norm(self) -> float:
        """Over the shards of all processes."""
        norm = get_total_norm([gradient for _, gradient in gradients_of(self.learner.student)])
        return float(_full(norm))

    def update(self, lr: float, grad_norm: float) -> None:
        """Each process updates its shards; clipped as torch does."""
        if self.clip_norm is not None:
            factor = min(self.clip_norm / (grad_norm + 1e-6), 1.0)
            for _, gradient in gradients_of(self.learner.student):
                gradient.mul_(factor)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.models.pieces.follow(self.visit)

    def moments(self) -> dict[str, Tensor]:
        """Gathered."""
        tensors = optimizer_tensors(self.optimizer, self.learner.student)
        return on_main(((name, _full(tensor)) for name, tensor in tensors.items()), self.accelerator)

    @torch.no_grad()
    def reloaded(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], source: Path) -> None:
        """Each process takes its shards."""
        for parameter, weight in checked_weights(self.learner.student, weights, source):
            parameter.copy_(_like(weight, parameter))
        restore_optimizer(self.optimizer, self.learner.student, moments, source, _like)


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's shard of a whole tensor, cut as ``parameter`` is."""
    assert isinstance(parameter, DTensor)
    tensor = tensor.detach().to(parameter.device)
    # No data come from another process: the whole tensor is in each.
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)

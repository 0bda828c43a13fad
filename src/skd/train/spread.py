"""How a run is spread over processes: whole in each (here), or in shards (``skd.train.fsdp``, ``skd.train.zero``).

Sampling and validation run ``pair.student``, inside ``visit``; checkpoints and the export read it, inside
``read_by_main``. What the optimiser updates is ``learner.student``: the same model, or one whose weights, gradients and
moments are cut into shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW

from skd.config import TrainConfig
from skd.models import Pair
from skd.train.batch import StudentLoss
from skd.train.optimizer import adamw, set_lr
from skd.train.tensors import optimizer_tensors, restore_optimizer, restore_student

__all__ = ["MakeLoss", "Replicated", "Spread", "gradients_of", "on_main"]

MakeLoss = Callable[[Pair], StudentLoss]


class Spread(Protocol):
    """See the module docstring. Every process must call each method, in the same order."""

    @property
    def learner(self) -> Pair:
        """The pair whose student the optimiser updates."""
        ...

    @property
    def module(self) -> nn.Module:
        """The learner's loss in the wrapper that brings gradients together."""
        ...

    @property
    def optimizer(self) -> AdamW:
        """Of the learner's student, or of its shards in this process."""
        ...

    def visit(self) -> AbstractContextManager[None]:
        """Inside, each process can run the models of the run's pair, which are up to date, as often as it likes.

        Processes meet at its end, and exchange nothing else before that; a visit inside another is such an end, too.
        """
        ...

    def read_by_main(self) -> AbstractContextManager[None]:
        """Inside, the main process can read the weights of the run's student."""
        ...

    def backward_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Around the forward and backward of one micro-batch; ``last`` of its step."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss, averaged over the processes."""
        ...

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Name and whole gradient of each trained weight that has one."""
        ...

    def grad_norm(self) -> float:
        """Of all gradients, over all processes."""
        ...

    def update(self, lr: float, grad_norm: float) -> None:
        """Clip the gradients, take the optimiser's step, and bring what follows the student up to date."""
        ...

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's state without shards, as ``skd.train.tensors.optimizer_tensors`` gives it.

        Processes but the main one may get none of it.
        """
        ...

    def reloaded(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], source: Path) -> None:
        """Take over the trained weights of a student and the optimiser's state. Raises CheckpointError."""
        ...


@dataclass(frozen=True)
class Replicated:
    """Everything whole in every process; gradients are averaged (DDP)."""

    learner: Pair
    module: nn.Module
    optimizer: AdamW
    accelerator: Accelerator
    clip_norm: float | None

    @classmethod
    def over(cls, pair: Pair, make_loss: MakeLoss, settings: TrainConfig, accelerator: Accelerator) -> Replicated:
        """The pair itself learns."""
        module = accelerator.prepare_model(make_loss(pair))
        return cls(pair, module, adamw(pair.student, settings), accelerator, settings.clip_norm)

    def visit(self) -> AbstractContextManager[None]:
        """They always can be run."""
        return nullcontext()

    def read_by_main(self) -> AbstractContextManager[None]:
        """They always can be read."""
        return nullcontext()

    def backward_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Only the last backward of a step averages."""
        context: AbstractContextManager[object] = nullcontext() if last else self.accelerator.no_sync(self.module)
        return context

    def backward(self, loss: Tensor) -> None:
        """By torch."""
        loss.backward()

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """They are equal in every process."""
        return gradients_of(self.learner.student)

    def grad_norm(self) -> float:
        """By torch."""
        return float(get_total_norm([gradient for _, gradient in self.gradients()]))

    def update(self, lr: float, grad_norm: float) -> None:
        """By torch."""
        if self.clip_norm is not None:
            clip_grads_with_norm_(self.learner.student.parameters(), self.clip_norm, torch.tensor(grad_norm))
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.learner.updated()

    def moments(self) -> dict[str, Tensor]:
        """As they are."""
        return optimizer_tensors(self.optimizer, self.learner.student)

    def reloaded(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], source: Path) -> None:
        """In place."""
        restore_student(self.learner.student, weights, source)
        self.learner.sync()
        restore_optimizer(self.optimizer, self.learner.student, moments, source)


def gradients_of(student: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and gradient, as it lies in this process, of each weight that has one."""
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            yield name, parameter.grad


def on_main(tensors: Iterable[tuple[str, Tensor]], accelerator: Accelerator) -> dict[str, Tensor]:
    """Tensors that all processes gather together, kept by the main one only, in the CPU's memory."""
    kept = {}
    for name, tensor in tensors:
        if accelerator.is_main_process:
            kept[name] = tensor.cpu()
    return kept

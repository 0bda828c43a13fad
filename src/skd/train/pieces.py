"""What one process keeps of the models that sample, judge and are saved, of a run that trains in shards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from skd.models import Pair

__all__ = ["Piece", "Pieces", "Weights", "local_teachers"]

Weights = Callable[[str, torch.dtype], Tensor]
"""A weight of the student by name, in this type, gathered from the learner's shards. Every process must ask for the
same ones, in the same order."""


@dataclass(frozen=True)
class Shell:
    """One weight, in every place where it stands. Emptied it is NaN, so that a use out of turn does not go unseen."""

    places: Sequence[nn.Parameter]
    nothing: Tensor
    """NaN, a number on the device where the weight is used."""

    @property
    def weight(self) -> nn.Parameter:
        return self.places[0]

    def fill(self, whole: Tensor) -> None:
        for place in self.places:
            place.data = whole

    def empty(self) -> None:
        self.fill(self.nothing.expand(self.weight.shape))


class Piece(Protocol):
    """A weight that is whole only while it is needed."""

    @property
    def shell(self) -> Shell:
        """Where it stands."""
        ...

    def gather(self, weights: Weights) -> None:
        """Make it whole. Every process must."""
        ...


@dataclass(frozen=True)
class _Learned:
    """A weight of the student, or of the copy that samples: the learner has the shards."""

    shell: Shell
    name: str

    def gather(self, weights: Weights) -> None:
        self.shell.fill(weights(self.name, self.shell.weight.dtype))


@dataclass(frozen=True)
class _Frozen:
    """What one process keeps of a weight that never changes: as many of its bytes as the others keep."""

    shell: Shell
    bytes_n: Tensor

    @classmethod
    def cut_from(cls, shell: Shell) -> _Frozen:
        """The whole is gone afterwards."""
        rank, count = distributed.get_rank(), distributed.get_world_size()
        whole = shell.weight.detach().contiguous().view(-1).view(torch.uint8)
        size = -(-len(whole) // count)
        bytes_n = torch.zeros(size, dtype=torch.uint8, device=shell.nothing.device)
        mine = whole[rank * size : (rank + 1) * size]
        bytes_n[: len(mine)] = mine
        shell.empty()
        return cls(shell, bytes_n)

    def gather(self, weights: Weights) -> None:
        whole = self.bytes_n.new_empty(distributed.get_world_size() * len(self.bytes_n))
        distributed.all_gather(list(whole.split(len(self.bytes_n))), self.bytes_n)
        weight = self.shell.weight
        own = whole[: weight.numel() * weight.element_size()]
        self.shell.fill(own.view(weight.dtype).view(weight.shape))


class Pieces:
    """The models of a pair, in pieces.

    The student's weights come from those that are trained. Teachers with weights of their own are cut into as many
    parts as there are processes. Stay whole all the time: the teachers' heads, which the loss reads; a teacher that is
    an average of the student; weights that are not floating-point numbers.

    device: where all that is kept goes; the models may be loaded in the host's memory.
    """

    def __init__(self, pair: Pair, device: torch.device) -> None:
        # As tensors name it: cuda:0 for cuda, cpu for cpu:0.
        self._pair, self._device = pair, torch.empty(0, device=device).device
        teachers, own = local_teachers(pair), pair.own_teacher
        heads = {weight.data_ptr() for teacher in teachers for weight in teacher.get_output_embeddings().parameters()}
        sharing = teachers if own is not None and not own.has_weights else ()
        self._student = [_Learned(shell, name) for name, shell in self._shells(pair.student, sharing)]
        copied = [] if pair.sampling_student is pair.student else self._shells(pair.sampling_student)
        frozen = [shell for teacher in teachers if own is None for _, shell in self._shells(teacher)]
        self.all: list[Piece] = [*self._student, *(_Learned(shell, name) for name, shell in copied)]
        kept = {id(piece) for piece in self._student if piece.shell.weight.data_ptr() in heads}
        self.all += [_Frozen.cut_from(shell) for shell in frozen if shell.weight.data_ptr() not in heads]
        self._emptied = [piece.shell for piece in self.all if id(piece) not in kept]

    def _shells(self, model: nn.Module, others: Iterable[nn.Module] = ()) -> Iterator[tuple[str, Shell]]:
        """The plain weights of a model by name, each with every place where it, or one of ``others``, has it."""
        places: dict[int, dict[int, nn.Parameter]] = {}
        for parameter in chain(model.parameters(), *(other.parameters() for other in others)):
            places.setdefault(parameter.data_ptr(), {})[id(parameter)] = parameter
        for name, parameter in model.named_parameters():
            if type(parameter) is nn.Parameter and type(parameter.data) is Tensor and parameter.is_floating_point():
                nothing = torch.full((), math.nan, dtype=parameter.dtype, device=self._device)
                yield name, Shell(list(places[parameter.data_ptr()].values()), nothing)

    def of(self, module: nn.Module) -> list[Piece]:
        """Those that stand in a module, each once."""
        standing = {id(parameter) for parameter in module.parameters()}
        return [piece for piece in self.all if any(id(place) in standing for place in piece.shell.places)]

    def empty(self) -> None:
        """Give the memory back, and bring to the device what stays."""
        for shell in self._emptied:
            shell.empty()
        for model in {self._pair.student, self._pair.sampling_student, *local_teachers(self._pair)}:
            for tensor in chain(model.parameters(), model.buffers()):
                if tensor.device != self._device:
                    tensor.data = tensor.data.to(self._device)

    @contextmanager
    def read_by_main(self, weights: Weights) -> Iterator[None]:
        """The student's weights whole in the host's memory of the main process, one gathered after the other."""
        for piece in self._student:
            whole = weights(piece.name, piece.shell.weight.dtype)
            if distributed.get_rank() == 0:
                piece.shell.fill(whole.cpu())
        try:
            yield
        finally:
            for piece in self._student:
                piece.shell.empty()

    def follow(self, visit: Callable[[], AbstractContextManager[None]]) -> None:
        """After an update: a teacher that is an average of the student moves. The rest is seen to by the next visit."""
        if self._pair.own_teacher is not None and self._pair.own_teacher.has_weights:
            with visit():
                self._pair.updated()


def local_teachers(pair: Pair) -> list[PreTrainedModel]:
    """Those in this process, each once."""
    models = (one.teacher for one in (pair, *pair.routes.values()))
    return list({id(model): model for model in models if model is not None}.values())

"""Models that are whole only while they are needed: between two visits a process has its part of them, or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from skd.models import Pair

__all__ = ["WholeModels"]

Weights = Callable[[], Iterable[tuple[str, Tensor]]]
"""The student's weights by name, gathered one after the other. Every process must take all of them."""


@dataclass(frozen=True)
class _Shell:
    """One weight, in every place where it stands. Emptied it is NaN, so that a use out of turn does not go unseen."""

    places: Sequence[nn.Parameter]

    @property
    def weight(self) -> nn.Parameter:
        return self.places[0]

    def fill(self, whole: Tensor) -> None:
        for place in self.places:
            place.data = whole

    def empty(self) -> None:
        self.fill(self.weight.new_full((), math.nan, requires_grad=False).expand(self.weight.shape))


@dataclass(frozen=True)
class _Part:
    """What one process keeps of a weight that never changes: as many of its bytes as the others keep."""

    shell: _Shell
    bytes_n: Tensor

    @classmethod
    def cut_from(cls, shell: _Shell) -> _Part:
        """The whole is gone afterwards."""
        rank, count = distributed.get_rank(), distributed.get_world_size()
        whole = shell.weight.detach().contiguous().view(-1).view(torch.uint8)
        size = -(-len(whole) // count)
        bytes_n = whole.new_zeros(size)
        mine = whole[rank * size : (rank + 1) * size]
        bytes_n[: len(mine)] = mine
        shell.empty()
        return cls(shell, bytes_n)

    def gather(self) -> None:
        whole = self.bytes_n.new_empty(distributed.get_world_size() * len(self.bytes_n))
        distributed.all_gather(list(whole.split(len(self.bytes_n))), self.bytes_n)
        weight = self.shell.weight
        own = whole[: weight.numel() * weight.element_size()]
        self.shell.fill(own.view(weight.dtype).view(weight.shape))


class WholeModels:
    """The models of a pair that sample, judge, are measured and saved, of a run that trains in shards.

    The student's weights come from those that are trained. Teachers with weights of their own are cut into as many
    parts as there are processes. Stay whole all the time: the teachers' heads, which the loss reads; a teacher that is
    an average of the student; weights that are not floating-point numbers.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._visitors = 0
        teachers, own = _teachers(pair), pair.own_teacher
        heads = {weight.data_ptr() for teacher in teachers for weight in teacher.get_output_embeddings().parameters()}
        self._student = _shells(pair.student, teachers if own is not None and not own.has_weights else ())
        self._copies = _copies(pair)
        emptied = [shell for shell in self._student.values() if shell.weight.data_ptr() not in heads]
        frozen = [shell for teacher in teachers if own is None for shell in _shells(teacher).values()]
        self._parts = [_Part.cut_from(shell) for shell in frozen if shell.weight.data_ptr() not in heads]
        self._emptied = [*emptied, *self._copies, *(part.shell for part in self._parts)]

    def empty(self) -> None:
        """Give the memory back."""
        for shell in self._emptied:
            shell.empty()

    @contextmanager
    def visit(self, weights: Weights) -> Iterator[None]:
        """All of them whole, inside. Every process must enter; each leaves on its own."""
        if not self._visitors:
            self._gather(weights)
        self._visitors += 1
        try:
            yield
        finally:
            self._visitors -= 1
            if not self._visitors:
                self.empty()

    def follow(self, whole: Callable[[], AbstractContextManager[None]]) -> None:
        """After an update: a teacher that is an average of the student moves. The rest is seen to by the next visit."""
        if self._pair.own_teacher is not None and self._pair.own_teacher.has_weights:
            with whole():
                self._pair.updated()

    @torch.no_grad()
    def _gather(self, weights: Weights) -> None:
        for name, weight in weights():
            if name in self._student:
                self._student[name].fill(weight)
        for copy in self._copies:
            copy.fill(copy.weight.new_empty(copy.weight.shape, requires_grad=False))
        self._pair.sync()
        for part in self._parts:
            part.gather()


def _teachers(pair: Pair) -> list[PreTrainedModel]:
    """Those in this process, each once."""
    models = (one.teacher for one in (pair, *pair.routes.values()))
    return list({id(model): model for model in models if model is not None}.values())


def _copies(pair: Pair) -> list[_Shell]:
    """The weights of the copy that samples, where there is one. What is not trained is not copied anew."""
    if pair.sampling_student is pair.student:
        return []
    trained = {name for name, parameter in pair.student.named_parameters() if parameter.requires_grad}
    return [shell for name, shell in _shells(pair.sampling_student).items() if name in trained]


def _shells(model: nn.Module, others: Iterable[nn.Module] = ()) -> dict[str, _Shell]:
    """The plain weights of a model by name, each with every place where it, or one of ``others``, has it."""
    places: dict[int, dict[int, nn.Parameter]] = {}
    for parameter in chain(model.parameters(), *(other.parameters() for other in others)):
        places.setdefault(parameter.data_ptr(), {})[id(parameter)] = parameter
    return {
        name: _Shell(list(places[parameter.data_ptr()].values()))
        for name, parameter in model.named_parameters()
        if type(parameter) is nn.Parameter and type(parameter.data) is Tensor and parameter.is_floating_point()
    }

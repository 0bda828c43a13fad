"""Models that are never whole: a layer is gathered just before its forward and given back after it.

All processes must take part in each gathering, but each has forwards of its own: its responses are longer, its drafts
are judged more often, it is the one that draws the token view. So forwards go in rounds. Before a forward each process
tells which model it wants to run, or that it wants none any more. The first model that is wanted, the student before
the teachers, has its turn: those that want it run it, the others gather and give back the same layers without
computing anything, and ask again. A process that is done goes on like that until all are.

No dummy tokens are fed: gathering is all that a process owes the others, as a forward exchanges nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from skd.errors import RemoteError
from skd.models import Pair, body, layers_of
from skd.train.pieces import Piece, Pieces, Weights, local_teachers
from skd.train.whole import Models, WholeModels

__all__ = ["GATHERINGS", "LayeredModels"]


@dataclass(frozen=True)
class _Layered:
    """A model by what is whole at once: its frame (embeddings, last norm) for a forward, inside it a layer at a time.

    Heads are not among them: who samples holds the weight of a head itself, so it is whole for a visit.
    """

    body: nn.Module
    frame: Sequence[Piece]
    layers: Sequence[tuple[nn.Module, Sequence[Piece]]]

    @classmethod
    def of(cls, model: PreTrainedModel, pieces: Pieces, heads: Sequence[Piece]) -> _Layered:
        """``heads``: pieces that are whole anyway."""
        inner = body(model)
        layers = [(layer, pieces.of(layer)) for layer in layers_of(model)]
        elsewhere = {id(piece) for _, held in layers for piece in held} | set(map(id, heads))
        return cls(inner, [piece for piece in pieces.of(inner) if id(piece) not in elsewhere], layers)


class LayeredModels:
    """The models of a pair, student first. Between two visits a process has its part of them; inside, heads are whole,
    and of the model that runs its frame and one layer."""

    def __init__(self, pair: Pair, device: torch.device) -> None:
        self.pieces, self._device = Pieces(pair, device), device
        students = [pair.sampling_student, *([] if pair.sampling_student is pair.student else [pair.student])]
        self._heads = [piece for model in students for piece in self.pieces.of(model.get_output_embeddings())]
        models = [*students, *local_teachers(pair)]
        self._models = [_Layered.of(model, self.pieces, self._heads) for model in models]
        self._rounds: _Rounds | None = None

    @contextmanager
    def visit(self, weights: Weights) -> Iterator[None]:
        """Every process must enter; all leave together."""
        if self._rounds is not None:
            with self._rounds.until_all_are_done():
                yield
            return
        _gather(self._heads, weights)
        self._rounds = _Rounds(self._models, weights, self._device)
        try:
            with self._rounds.hooked(), self._rounds.until_all_are_done():
                yield
        finally:
            self._rounds = None
            self.pieces.empty()


GATHERINGS: Mapping[str, Callable[[Pair, torch.device], Models]] = {"step": WholeModels, "layer": LayeredModels}
"""By the values of ``train.gather``."""


class _Rounds:
    """The forwards of a visit."""

    def __init__(self, models: Sequence[_Layered], weights: Weights, device: torch.device) -> None:
        self._models, self._weights, self._device = models, weights, device
        self._coming: list[nn.Module] = []
        """Layers of the forward that runs which are still to come."""

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Inside, each forward of one of the models waits for its turn, and has its weights."""
        with ExitStack() as hooks:
            for number, model in enumerate(self._models):
                hooks.enter_context(_around(model.body, partial(self._begin, number), partial(self._end, model)))
                for layer, held in model.layers:
                    hooks.enter_context(_around(layer, partial(self._begin_layer, layer, held), partial(_empty, held)))
            yield

    @contextmanager
    def until_all_are_done(self) -> Iterator[None]:
        """Afterwards no process is inside. One that fails does not wait for the others: as anywhere, all end."""
        try:
            yield
        except RemoteError:  # the server of one process is lost, and all save what they have
            self._take_turns(len(self._models))
            raise
        self._take_turns(len(self._models))

    def _take_turns(self, wanted: int) -> None:
        """Take part in the forwards of the others until it is the turn of this one's model; a number above them all
        stands for none."""
        while (turn := self._turn(wanted)) != wanted:
            model = self._models[turn]
            _gather(model.frame, self._weights)
            for _, held in model.layers:
                _gather(held, self._weights)
                _empty(held)
            _empty(model.frame)

    def _turn(self, wanted: int) -> int:
        """The lowest number that a process wants."""
        number = torch.tensor(wanted, device=self._device)
        distributed.all_reduce(number, distributed.ReduceOp.MIN)
        return int(number)

    def _begin(self, number: int) -> None:
        self._take_turns(number)
        model = self._models[number]
        _gather(model.frame, self._weights)
        self._coming = [layer for layer, _ in model.layers]

    def _begin_layer(self, layer: nn.Module, held: Sequence[Piece]) -> None:
        # The others gather in this order whatever the forward does.
        assert self._coming.pop(0) is layer, "layers run in the order of their modules"
        _gather(held, self._weights)

    def _end(self, model: _Layered) -> None:
        assert not self._coming, "every layer runs"
        _empty(model.frame)


# Sampling is in inference mode, and a weight must not become a tensor of it.
@torch.inference_mode(False)
@torch.no_grad()
def _gather(pieces: Sequence[Piece], weights: Weights) -> None:
    for piece in pieces:
        piece.gather(weights)


@torch.inference_mode(False)
def _empty(pieces: Sequence[Piece]) -> None:
    for piece in pieces:
        piece.shell.empty()


@contextmanager
def _around(module: nn.Module, before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Inside, each forward of the module has the two calls around it."""

    def begin(module: nn.Module, arguments: Any) -> None:
        before()

    def end(module: nn.Module, arguments: Any, output: Tensor) -> None:
        after()

    handles = module.register_forward_pre_hook(begin), module.register_forward_hook(end)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""When the models of a run in shards are whole: all at once (here), or a layer at a time (``skd.train.lockstep``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch

from skd.models import Pair
from skd.train.pieces import Pieces, Weights

__all__ = ["Models", "WholeModels"]


class Models(Protocol):
    """The models of a pair, whose weights a process can use only inside a visit."""

    @property
    def pieces(self) -> Pieces:
        """What is kept of them between visits."""
        ...

    def visit(self, weights: Weights) -> AbstractContextManager[None]:
        """Inside, any of them can be run, by each process as often as it likes; see ``Spread.visit``."""
        ...


class WholeModels:
    """Between two visits a process has its part of the models; inside, all of them are whole."""

    def __init__(self, pair: Pair, device: torch.device) -> None:
        self.pieces = Pieces(pair, device)
        self._visitors = 0

    @contextmanager
    def visit(self, weights: Weights) -> Iterator[None]:
        """Every process must enter; each leaves on its own."""
        if not self._visitors:
            with torch.no_grad():
                for piece in self.pieces.all:
                    piece.gather(weights)
        self._visitors += 1
        try:
            yield
        finally:
            self._visitors -= 1
            if not self._visitors:
                self.pieces.empty()

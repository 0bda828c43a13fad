"""How the two passes that a rollout repeats are executed: the student's draft step, the teacher's look at a block.

As they are, or compiled. Compiled they need shapes that do not follow the data, so that there are few graphs: rows are
not dropped, blocks are powers of two, and attention looks at a power of two of positions. No pass asks a tensor what to
do next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from skd.sampling.cache import AttentionForm, CursorCache, CursorModel
from skd.sampling.packed import KeptCopies, packed_products
from skd.sampling.writer import Passes, read, step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["PACKED_MB", "Compiled", "Eager"]

PACKED_MB = 4000
"""What packed weights may take where nothing else is said."""

_MOST_GRAPHS = 256
"""Per pass: blocks x lengths of two models, and some room. Beyond it torch.compile gives up, usually after eight."""
_SHORTEST = 64


@dataclass(frozen=True)
class Eager:
    """The passes as they are. ``packed_mb`` bounds what ``skd.sampling.packed`` may take, in megabytes; in ``kept`` it
    keeps copies of frozen teachers for the next rollout."""

    packed_mb: int = PACKED_MB
    kept: KeptCopies | None = field(default=None, compare=False)
    passes: Passes = Passes()  # noqa: RUF009 - a value without state
    fixed_shapes: ClassVar[bool] = False

    def body(self, module: nn.Module, form: AttentionForm, context: int, num_rows: int, capacity: int) -> CursorModel:
        """A model with a cache for ``num_rows`` rows of at least ``capacity`` positions."""
        return CursorModel(module, form, context, CursorCache(num_rows, capacity))

    def running(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, *, frozen: bool
    ) -> AbstractContextManager[None]:
        """Around the passes of a rollout by these models; ``frozen`` says that the teacher's weights never change."""
        return packed_products((student, teacher), self.packed_mb, teacher if frozen else None, self.kept)


class Compiled(Eager):
    """Compiled passes, with the caches that they write to kept at their place in memory for all rollouts of a run.

    ``backend`` and ``mode`` go to ``torch.compile``; None captures CUDA graphs where there is CUDA.
    """

    fixed_shapes: ClassVar[bool] = True

    def __init__(self, backend: str = "inductor", mode: str | None = None) -> None:
        mode = mode or ("reduce-overhead" if torch.cuda.is_available() else None)

        def compiled(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
            graphs = torch.compile(function, backend=backend, mode=mode, fullgraph=True, dynamic=False)
            return graphs if mode is None else _captured(graphs)

        super().__init__(0, passes=Passes(compiled(step), compiled(read)))
        self._caches: WeakKeyDictionary[nn.Module, CursorCache] = WeakKeyDictionary()

    def body(self, module: nn.Module, form: AttentionForm, context: int, num_rows: int, capacity: int) -> CursorModel:
        """With the cache of the last rollout where that is of the same size."""
        capacity, cache = _bucket(capacity), self._caches.get(module)
        if cache is None or (cache.num_rows, cache.capacity) != (num_rows, capacity):
            cache = self._caches[module] = CursorCache(num_rows, capacity, static=True)
        return CursorModel(module, form, context, cache, _bucket)

    @contextmanager
    def running(self, student: PreTrainedModel, teacher: PreTrainedModel | None, *, frozen: bool) -> Iterator[None]:
        """With room for all graphs."""
        with torch._dynamo.config.patch(recompile_limit=_MOST_GRAPHS, accumulated_recompile_limit=4 * _MOST_GRAPHS):
            yield


def _bucket(length: int) -> int:
    """The power of two, 64 or more, that holds ``length``."""
    return max(_SHORTEST, 1 << (length - 1).bit_length())


def _captured(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    def call(*arguments: Any) -> tuple[Tensor, ...]:
        # The next replay of a CUDA graph writes over what the last one gave.
        torch.compiler.cudagraph_mark_step_begin()
        return tuple(tensor.clone() for tensor in function(*arguments))

    return call

"""Products with few rows on a CPU: for the length of a rollout the weights are laid out anew, as oneDNN reads them.

A rollout multiplies the same weights with a few rows some hundred times. As a torch parameter stores them, arranging
them takes as long as multiplying does, each time. A frozen teacher's copies may stay for the rollouts to come.
docs/speed.md has the figures.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["KeptCopies", "Packing", "packed", "packed_product", "packed_products", "worth_packing"]

_SMALL_WEIGHT = 2**16
"""Numbers of a weight that is left as it is: the other product takes longer to start."""
_SMALL_MODEL = 2**22
"""Numbers of the largest model below which all are left as they are: each operation is looked at, for a microsecond."""
_MEASURED = ("x86_64", "AMD64")
"""Processors on which the gain was measured."""


Copies = dict[tuple[int, torch.Size], tuple[Tensor, Tensor | None]]
"""By the place and shape of a weight: itself, so that nothing else comes to that place, and its copy, if it has one."""


class KeptCopies:
    """Copies of frozen teachers' weights, for the rollouts to come."""

    def __init__(self) -> None:
        self._models: WeakKeyDictionary[nn.Module, Copies] = WeakKeyDictionary()

    def of(self, model: nn.Module | None) -> Copies:
        """Those of one model; empty where none were kept."""
        return {} if model is None else self._models.get(model, {})

    def make_room(self, models: Sequence[nn.Module], num_bytes: int) -> None:
        """Drop all unless those of other models leave these models that many bytes."""
        others = (copies for model, copies in self._models.items() if model not in models)
        if sum(map(_num_bytes, others)) > num_bytes:
            self._models.clear()

    def keep(self, model: nn.Module, copies: Copies) -> None:
        """Of ``copies``, those of the model's own weights; not of adapters that are trained on it."""
        own = {weight.untyped_storage().data_ptr() for weight in model.parameters() if not weight.requires_grad}
        self._models[model] = {
            place: (weight, copy)
            for place, (weight, copy) in copies.items()
            if weight.untyped_storage().data_ptr() in own
        }


def _num_bytes(copies: Copies) -> int:
    return sum(weight.nbytes for weight, copy in copies.values() if copy is not None)


@contextmanager
def packed_products(
    models: Sequence[PreTrainedModel | None],
    megabytes: int,
    frozen: PreTrainedModel | None = None,
    kept: KeptCopies | None = None,
) -> Iterator[None]:
    """Inside, products of these models' weights are taken from packed copies, on a CPU.

    The copies take at most ``megabytes`` (10^6 bytes) and are gone afterwards, so that weights may change between two
    rollouts; but for those of ``frozen``, one of the models, which go to ``kept`` where all weights of the models have
    room. Which weights are packed follows from the order of the products alone, and where some are kept it is all of
    them: the same run packs the same ones, resumed or not. Results differ from torch's by rounding.
    """
    here = [model for model in models if model is not None and model.device.type == "cpu"]
    if not megabytes or not worth_packing(model.num_parameters() for model in here):
        yield
        return
    room = megabytes * 10**6
    spare = room - sum(weight.nbytes for model in here for weight in model.parameters())
    if kept is None or frozen is None or spare < 0:
        with Packing(room):
            yield
        return
    kept.make_room(here, spare)
    with Packing(room, kept.of(frozen)) as packing:
        yield
    kept.keep(frozen, packing.copies)


def worth_packing(sizes: Iterable[int]) -> bool:
    """Whether models with so many weights, which sample together on a CPU, gain by it."""
    # oneDNN's operations under the names by which torch.compile calls them for frozen weights.
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return known and platform.machine() in _MEASURED and max(sizes, default=0) >= _SMALL_MODEL


class Packing(TorchFunctionMode):
    """Packs each weight at its first product, as long as ``room`` bytes allow it; ``copies`` are there already."""

    def __init__(self, room: int, copies: Copies | None = None) -> None:
        super().__init__()
        self.copies: Copies = dict(copies or {})
        self._left = room

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is linear and not kwargs:
            states, weight, bias = (*args, None)[:3]
            copy = self._of(weight)
            if copy is not None:
                return packed_product(states, copy, bias)
        return func(*args, **(kwargs or {}))

    def _of(self, weight: Tensor) -> Tensor | None:
        place = weight.data_ptr(), weight.shape
        if place not in self.copies:
            takes = self._takes(weight)
            self._left -= weight.nbytes * takes
            self.copies[place] = weight, packed(weight) if takes else None
        return self.copies[place][1]

    def _takes(self, weight: Tensor) -> bool:
        plain = type(weight.detach()) is Tensor and weight.dtype in (torch.float32, torch.bfloat16)
        return plain and weight.numel() >= _SMALL_WEIGHT and weight.nbytes <= self._left


def packed(weight: Tensor) -> Tensor:
    """A copy of a weight [out, in] in oneDNN's layout; only its products can read it."""
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return copy


def packed_product(states: Tensor, copy: Tensor, bias: Tensor | None = None) -> Tensor:
    """``linear(states, weight, bias)`` from what ``packed`` made of the weight; no gradient."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states, copy, bias, "none", [], "")
    return product

"""Products with few rows on a CPU: for the length of a rollout the weights are laid out anew, as oneDNN reads them.

A rollout multiplies the same weights with a few rows some hundred times. As a torch parameter stores them, arranging
them takes as long as multiplying does, each time. docs/speed.md has the figures.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Packing", "packed", "packed_product", "packed_products", "worth_packing"]

_FEW_ROWS = 256
"""A product with more does not have its weight packed: there the arithmetic takes nearly all of the time."""
_SMALL_WEIGHT = 2**16
"""Numbers of a weight that is left as it is: the other product takes longer to start."""
_SMALL_MODEL = 2**22
"""Numbers of the largest model below which all are left as they are: each operation is looked at, for a microsecond."""
_MEASURED = ("x86_64", "AMD64")
"""Processors on which the gain was measured."""


@contextmanager
def packed_products(models: Sequence[PreTrainedModel | None], megabytes: int) -> Iterator[None]:
    """Inside, products of these models' weights with few rows are taken from packed copies, on a CPU.

    The copies take at most ``megabytes`` (10^6 bytes) and are gone afterwards, so that weights may change between two
    rollouts. Which weights are packed follows from the order of the products alone: the same run packs the same ones.
    Results differ from torch's by rounding.
    """
    here = [model for model in models if model is not None and model.device.type == "cpu"]
    if megabytes and worth_packing(model.num_parameters() for model in here):
        with Packing(megabytes * 10**6):
            yield
    else:
        yield


def worth_packing(sizes: Iterable[int]) -> bool:
    """Whether models with so many weights, which sample together on a CPU, gain by it."""
    # oneDNN's operations under the names by which torch.compile calls them for frozen weights.
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return known and platform.machine() in _MEASURED and max(sizes, default=0) >= _SMALL_MODEL


class Packing(TorchFunctionMode):
    """Packs each weight at its first product with few rows, as long as ``left`` bytes allow it."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self._left = left
        # With its copy the weight is kept, too: its id must not come to mean another one.
        self._copies: dict[int, tuple[Tensor, Tensor | None]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is linear and not kwargs:
            states, weight, bias = (*args, None)[:3]
            copy = self._of(weight, states.numel() // states.shape[-1])
            if copy is not None:
                return packed_product(states, copy, bias)
        return func(*args, **(kwargs or {}))

    def _of(self, weight: Tensor, rows: int) -> Tensor | None:
        if id(weight) not in self._copies:
            if rows > _FEW_ROWS:
                return None
            takes = self._takes(weight)
            self._left -= weight.nbytes * takes
            self._copies[id(weight)] = weight, packed(weight) if takes else None
        return self._copies[id(weight)][1]

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

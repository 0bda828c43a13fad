"""Noise by counter: every draw is a pure function of what it is for.

A response therefore does not depend on the batch, the slot, the rank, the block size or a resume. The generator is
Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

__all__ = ["Purpose", "uniform"]

_MASK = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


class Purpose(IntEnum):
    """What a draw is for; two purposes never share a stream."""

    DRAFT = 0
    ACCEPT = 1
    REPLACE = 2
    COIN = 3
    ORDER = 4


def uniform(
    seed: int,
    purpose: int | Tensor,
    epoch: int | Tensor,
    sample: int | Tensor,
    response: int | Tensor,
    position: int | Tensor,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Uniform float64 numbers in the open interval (0, 1), of the broadcast shape of the arguments.

    ``seed`` has 64 bits; ``epoch``, ``sample`` and ``position`` 32; ``response`` 24; ``purpose`` 8.
    """
    words = torch.broadcast_tensors(
        *(_as_int64(word, device) for word in (position, sample, _stream(purpose, response, device), epoch))
    )
    high, low, _, _ = _philox(seed & _MASK, (seed >> 32) & _MASK, *words)
    # Shifting before joining keeps all 53 bits inside a signed 64-bit integer.
    bits = (high << 21) | (low >> 11)
    return (bits.double() + 0.5) * 2.0**-53


def _as_int64(value: int | Tensor, device: torch.device | str) -> Tensor:
    return torch.as_tensor(value, dtype=torch.int64, device=device)


def _stream(purpose: int | Tensor, response: int | Tensor, device: torch.device | str) -> Tensor:
    return _as_int64(response, device) | (_as_int64(purpose, device) << 24)


def _multiply(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    # The product of two 32-bit words wraps in int64, but its bits are right; masking undoes the sign extension.
    product = word * factor
    return (product >> 32) & _MASK, product & _MASK


def _philox(key_0: int, key_1: int, *counter: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c, d = counter
    for _ in range(_ROUNDS):
        high_0, low_0 = _multiply(_MULTIPLIER_0, a)
        high_1, low_1 = _multiply(_MULTIPLIER_1, c)
        a, b, c, d = high_1 ^ b ^ key_0, low_1, high_0 ^ d ^ key_1, low_0
        key_0, key_1 = (key_0 + _WEYL_0) & _MASK, (key_1 + _WEYL_1) & _MASK
    return a, b, c, d

"""Which rows are trained on when: pure functions of the seed and of the number of samples trained.

Nothing is consumed, so resuming needs no replay, and ranks that share one position agree without talking.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["batch_at", "order"]


def order(seed: int, epoch: int, n: int) -> list[int]:
    """The permutation of ``range(n)`` in which ``epoch`` visits the rows; 0 <= seed, epoch < 2**64.

    Rows are sorted by raw Philox words keyed by (seed, epoch), which NumPy keeps stable across versions and platforms.
    """
    return [int(i) for i in _permutation(seed, epoch, n)]


def _permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable")


def batch_at(position: int, batch_size: int, n: int, seed: int) -> list[tuple[int, int]]:
    """The batch that starts after ``position`` trained samples, as (epoch, row) pairs.

    Batches cross the borders of epochs: none is short and none is dropped. A rank takes its share of the list by
    slicing. Raises ValueError unless position >= 0, batch_size >= 0 and n >= 1.
    """
    if position < 0 or batch_size < 0 or n < 1:
        raise ValueError(f"position {position}, batch_size {batch_size} and n {n} must be >= 0, >= 0 and >= 1")
    samples = [divmod(sample, n) for sample in range(position, position + batch_size)]
    return [(epoch, int(_cached_order(seed, epoch, n)[place])) for epoch, place in samples]


@lru_cache(maxsize=4)
def _cached_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    return _permutation(seed, epoch, n)

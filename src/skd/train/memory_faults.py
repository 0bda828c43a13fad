"""Memory that runs out in a step: said with the largest row and the ways out; nothing is changed on its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from skd.errors import Problem, ResourceError

__all__ = ["memory_faults"]


@contextmanager
def memory_faults(step: int, doing: str, sizes: Mapping[int, int]) -> Iterator[None]:
    """Turn memory that runs out inside the block into ResourceError (SKD-T12). ``sizes``: row -> tokens."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        row = max(sizes, key=sizes.__getitem__, default=0)
        found = (
            f"memory ran out while {doing} ({str(error).splitlines()[0][:200] if str(error) else 'MemoryError'}); "
            f"of {len(sizes)} rows the largest, {row}, has {sizes.get(row, 0)} tokens"
        )
        remedy = (
            "lower train.micro_batch_tokens or sampling.slots, or set train.gradient_checkpointing: true, and resume "
            "from the last checkpoint"
        )
        raise ResourceError(Problem("SKD-T12", f"step {step}", found, remedy)) from error


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)

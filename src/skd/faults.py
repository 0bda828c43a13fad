"""Named fault points: the places where a test may interrupt a run. In normal use a point does nothing.

The names: ``rollout``, ``backward``, ``step`` in the training step, and ``save.open``, ``save.model``, ``save.optim``,
``save.manifest``, ``save.rename``, ``save.prune`` in a save, and ``generate.rename``, ``generate.shard`` for each shard
of stored responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["hooked", "point"]

_callback: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Tell the hook, if a test has set one, that the point ``name`` was reached."""
    if _callback is not None:
        _callback(name)


@contextmanager
def hooked(callback: Callable[[str], None]) -> Iterator[None]:
    """Call ``callback`` with the name of every point reached inside the block."""
    global _callback
    before, _callback = _callback, callback
    try:
        yield
    finally:
        _callback = before

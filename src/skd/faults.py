"""Named fault points: the places where a test may interrupt a run, and by which the processes of a run see each other
make progress. In a run of one process a point does nothing.

``start`` stands before anything is loaded, ``round`` before a round of the sampler, ``update``, ``validate`` and
``export`` before what they name, ``rollout``, ``backward``, ``step`` and ``save.done`` after it; the others are places
within a save. ``generate.rename`` and ``generate.shard`` are reached for each shard of stored responses, and ``judge``
before an evaluation judges a response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["POINTS", "hooked", "point"]

POINTS = (
    "start",
    "round",
    "rollout",
    "backward",
    "update",
    "step",
    "validate",
    "save.open",
    "save.model",
    "save.optim",
    "save.manifest",
    "save.rename",
    "save.verify",
    "save.prune",
    "save.done",
    "export",
)
"""Every name that is reached in a run: in a step, in a validation, in a save, before the student is exported."""

_callbacks: tuple[Callable[[str], None], ...] = ()


def point(name: str) -> None:
    """Tell the hooks that are set that the point ``name`` was reached."""
    for callback in _callbacks:
        callback(name)


@contextmanager
def hooked(callback: Callable[[str], None]) -> Iterator[None]:
    """Call ``callback`` with the name of every point reached inside the block, before the hooks around it."""
    global _callbacks
    before, _callbacks = _callbacks, (callback, *_callbacks)
    try:
        yield
    finally:
        _callbacks = before

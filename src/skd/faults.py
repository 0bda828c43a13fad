"""Named fault points: the places where a test may interrupt a run. In normal use a point does nothing.

``round`` stands before a round of the sampler, ``rollout``, ``backward``, ``step`` and ``save.done`` after what they
name, ``validate`` and ``export`` before it; the others are places within a save. ``generate.rename`` and
``generate.shard`` are reached for each shard of stored responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["POINTS", "hooked", "point"]

POINTS = (
    "round",
    "rollout",
    "backward",
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

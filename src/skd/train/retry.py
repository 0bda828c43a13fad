"""A save that fails is tried again before the run gives up: what it would write is still in memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from skd.errors import ResourceError

__all__ = ["RETRY_SECONDS", "persistently"]

RETRY_SECONDS = (1.0, 2.0, 4.0)
"""Waits before the three further attempts: long enough for a network file system to come back or a log to be rotated,
short enough for the half minute that a batch system leaves between SIGTERM and SIGKILL."""


def persistently(save: Callable[[], object], say: Callable[[str], None]) -> None:
    """Call ``save`` until it succeeds, four times at most. Raises the ResourceError of the last attempt."""
    for seconds in RETRY_SECONDS:
        try:
            save()
            return
        except ResourceError as error:
            say(f"{error}; trying again in {seconds:g} s")
        time.sleep(seconds)
    save()

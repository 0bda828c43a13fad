"""SIGTERM, SIGINT and SIGHUP as a flag that is read between steps, and between rounds of the sampler."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from skd.faults import point

__all__ = ["Interrupted", "StopSignal", "in_a_round"]

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def in_a_round() -> None:
    """A round of the sampler begins."""
    point("round")


class Interrupted(Exception):
    """A signal arrived, and the run is to end after the last finished step."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class StopSignal:
    """Inside the block the first SIGTERM, SIGINT or SIGHUP only sets ``number``; a second ends the process at once.

    A SIGHUP that is ignored stays so: that is what ``nohup`` asks for.

    Leaving at once does no damage, since a save is whole or absent. Outside the main thread, where Python lets nobody
    set handlers, the flag stays unset.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that arrived; None when none did."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            watched = [number for number in _WATCHED if not (ignored and number == signal.SIGHUP)]
            self._before = {number: signal.signal(number, self._arrived) for number in watched}
        return self

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number

    def check(self) -> None:
        """Raise Interrupted when a signal has arrived."""
        in_a_round()
        if self.number is not None:
            raise Interrupted(self.number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watched, handler in self._before.items():
            signal.signal(watched, handler)

"""How the benchmark talks with its contestants: one line per turn, so that they can be run in turns A B A B.

Standard library only, because the rivals' environment reads it too.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Stopwatch", "answer", "asked", "heard", "serve"]

_MARK = "@bench "


def answer(values: Mapping[str, Any]) -> None:
    """Tell the benchmark something."""
    print(_MARK + json.dumps(values), flush=True)


def asked() -> str | None:
    """The next contestant whose turn it is; None when there is no more."""
    line = sys.stdin.readline()
    return line.strip() or None


def heard(line: str) -> dict[str, Any] | None:
    """What a contestant told with this line of its output; None for other output."""
    values: dict[str, Any] | None = json.loads(line[len(_MARK) :]) if line.startswith(_MARK) else None
    return values


def serve(turns: Mapping[str, Callable[[], Mapping[str, Any]]]) -> None:
    """Take turns as they are asked for."""
    answer({"ready": list(turns)})
    while (name := asked()) is not None:
        answer(turns[name]())


class Stopwatch:
    """CPU seconds of this process, all threads, since it was made; its highest resident memory, and the rise of it."""

    def __init__(self) -> None:
        self._cpu, self._resident = time.process_time(), _resident_mb()

    def read(self) -> dict[str, float]:
        """All three."""
        peak = _peak_mb()
        return {"cpu": time.process_time() - self._cpu, "peak_mb": peak, "rise_mb": peak - self._resident}


def _resident_mb() -> float:
    """Resident memory now; where the system does not tell (not Linux), the highest so far."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return _peak_mb()
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6


def _peak_mb() -> float:
    """Highest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6

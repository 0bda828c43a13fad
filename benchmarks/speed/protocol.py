"""How the benchmark talks with its contestants: one line per turn, so that they can be run in turns A B A B.

Standard library only, because the rivals' environment reads it too.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Stopwatch", "answer", "asked", "peak_mb", "serve"]

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
    """CPU seconds of this process, all threads, since it was made; wall seconds beside them."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Both."""
        return {"cpu": time.process_time() - self._cpu, "wall": time.perf_counter() - self._wall}


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6

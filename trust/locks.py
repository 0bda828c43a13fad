"""Two runs on one directory: the second is refused; the lock that a killed run left is taken over."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from trust.child import Child, train
from trust.ends import differences
from trust.tally import Bench, Tally

__all__ = ["locks"]

MODE = "data_set"


def locks(bench: Bench) -> Tally:
    """A run that holds the directory, a second one, a kill of the first, a third one."""
    tally = Tally()
    for number in range(bench.size.locks):
        _one(bench, tally, bench.room / str(number))
    return tally


def _one(bench: Bench, tally: Tally, directory: Path) -> None:
    config = bench.toy.config(MODE)
    holder = _holding(bench, directory)
    second = train(directory, config).wait()
    named = "SKD-K16" in second.output and f'"pid": {holder.pid}' in second.output
    refused = [] if second.code == 5 and named else [f"exit code {second.code}: {second.output[-500:]}"]
    tally.note("second runs refused", *refused)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    third = train(directory, config).wait()
    complaints = [f"exit code {third.code}: {third.output[-500:]}"] if third.code else []
    tally.note("stale locks taken over", *complaints, *differences(directory / "run", bench.wholes[MODE].end))
    tally.counts["locks"] += 2


def _holding(bench: Bench, directory: Path) -> Child:
    """A run that stands still after one of its first steps."""
    left = [bench.random.randrange(8)]

    def hook(name: str) -> None:
        if name == "step" and not left[0]:
            os.write(told, b"x")
            signal.pause()
        left[0] -= name == "step"

    ready, told = os.pipe()
    holder = train(directory, bench.toy.config(MODE), hook=hook)
    os.close(told)
    with os.fdopen(ready, "rb") as pipe:
        pipe.read(1)
    return holder

"""``kill -9`` at random moments, inside saves and at every named point; the run is started again until it is done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from skd.faults import POINTS
from trust.child import Ended, train
from trust.ends import differences
from trust.tally import Bench, Tally
from trust.toy import MODES, UNREACHED

__all__ = ["inside_a_save", "kills"]

_SAVE_SECONDS = 0.01
"""About as long as a save of the toy takes: kills are spread over it, and those that miss do not count as inside."""
_ONCE = ("validate", "export")
"""Points that most runs reach too seldom to wait for the third time."""
_MOST_SECONDS = 3.0

Stop = Callable[["Chain"], Ended]
"""Starts the chain's run once more and ends it in some way, unless it ends by itself."""


class Chain:
    """Runs of one config, killed again and again; each that gets through is compared with the uninterrupted one."""

    def __init__(self, bench: Bench, mode: str, tally: Tally) -> None:
        self.bench, self.mode, self.tally = bench, mode, tally
        self.config, self.whole = bench.toy.config(mode), bench.wholes[mode]
        self._number = 0
        self.directory = self._next()

    def _next(self) -> Path:
        self._number += 1
        return self.bench.room / f"{self.mode}-{self._number}"

    def kill(self, stop: Stop, *, kind: str) -> None:
        """Stop runs in this way until one dies of it."""
        while True:
            ended = stop(self)
            if ended.code == -signal.SIGKILL and not ended.hung:
                self.tally.note(kind)
                self.tally.counts["kills"] += 1
                self.tally.counts["kills_in_save"] += inside_a_save(ended.point)
                return
            self._compare(ended)

    def finish(self) -> None:
        """Let the last run get through."""
        self._compare(train(self.directory, self.config).wait())

    def _compare(self, ended: Ended) -> None:
        complaints = [f"exit code {ended.code}: {ended.output[-500:]}"] if ended.code else []
        self.tally.note("runs compared", *complaints, *differences(self.directory / "run", self.whole.end))
        self.directory = self._next()


def inside_a_save(point: str) -> bool:
    """Whether the last point reached says that a save was under way."""
    return point.startswith("save.") and point != "save.done"


def kills(bench: Bench) -> Tally:
    """Every kind of kill, in every mode."""
    tally = Tally()
    for number, mode in enumerate(MODES):
        chain = Chain(bench, mode, tally)
        points = POINTS if bench.size.point_kills_in_every_mode else POINTS[number :: len(MODES)]
        for name in (name for name in points if (mode, name) not in UNREACHED):
            chain.kill(_at_point(name), kind="kills at a named point")
        aimed = tally.counts["kills_in_save"] + bench.size.save_kills_per_mode
        while tally.counts["kills_in_save"] < aimed:
            chain.kill(_in_save, kind="kills aimed at a save")
        for _ in range(bench.size.random_kills_per_mode):
            chain.kill(_at_random, kind="kills at a random moment")
        chain.finish()
    return tally


def _at_random(chain: Chain) -> Ended:
    seconds = chain.bench.random.uniform(0.1, min(_MOST_SECONDS, max(chain.whole.seconds, 0.2)))
    return train(chain.directory, chain.config).wait(kill_after=seconds)


def _in_save(chain: Chain) -> Ended:
    """The parent kills while the child is inside its next save but ``skip``."""
    skip = chain.bench.random.randrange(2)
    ready, told = os.pipe()
    seen = [0]

    def hook(name: str) -> None:
        seen[0] += name == "save.open"
        if name == "save.open" and seen[0] == skip + 1:
            os.write(told, b"x")

    child = train(chain.directory, chain.config, hook=hook)
    os.close(told)
    with os.fdopen(ready, "rb") as pipe:
        if pipe.read(1):
            time.sleep(chain.bench.random.uniform(0.0, _SAVE_SECONDS))
            os.kill(child.pid, signal.SIGKILL)
    return child.wait()


def _at_point(wanted: str) -> Stop:
    def stop(chain: Chain) -> Ended:
        left = [0 if wanted in _ONCE else chain.bench.random.randrange(3)]

        def hook(name: str) -> None:
            if name == wanted and not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= name == wanted

        return train(chain.directory, chain.config, hook=hook).wait()

    return stop

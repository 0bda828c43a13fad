"""What the processes of a run tell each other while they work, and which of them is late.

Each process writes a beat into the store of the process group and reads the others'. The processes of a run call the
same collectives in the same order, so one that has called fewer than another is the one that is waited for.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from torch.distributed import distributed_c10d

__all__ = ["Beat", "Exchange", "Lateness", "collectives", "machine", "place_of"]

State = Literal["working", "left", "failed"]
_PACKAGE = Path(__file__).parents[1]
_WATCHING = ("faults.py", "ranks/peers.py", "ranks/beats.py")


@dataclass(frozen=True)
class Beat:
    """What a process tells of itself."""

    machine: str
    pid: int
    points: int
    """Fault points it has reached (``skd.faults``): rounds of the sampler, micro-batches, parts of a save."""
    collectives: int
    """Exchanges with the other processes that it has begun."""
    step: int
    """From 1 on; 0 where there is none."""
    place: str
    """Where its main thread is."""
    state: State

    @property
    def progress(self) -> tuple[int, int]:
        """What changes as long as it works."""
        return self.points, self.collectives

    def __str__(self) -> str:
        return f"step {self.step}, {self.place}" if self.step else self.place


def collectives() -> int:
    """Collectives that this process has begun, over all its groups; -1 with a backend that does not count (gloo and
    NCCL do), where nobody is ever called late."""
    groups: list[Any] = list(distributed_c10d._world.pg_map)
    try:
        return sum(group._get_sequence_number_for_group() for group in groups)
    except RuntimeError:
        return -1


def machine() -> str:
    """The same for two processes if either can see whether the other one lives; empty where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def place_of(thread: int) -> str:
    """Where a thread is: the innermost line of this package, and torch's collective when it is in one."""
    frame, inside = sys._current_frames().get(thread), ""
    while frame is not None:
        file, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if file.name == "distributed_c10d.py":
            inside = f", in {name}"
        elif file.is_relative_to(_PACKAGE) and (where := file.relative_to(_PACKAGE).as_posix()) not in _WATCHING:
            return f"{where}:{frame.f_lineno} {name}{inside}"
        frame = frame.f_back
    return "outside skd"


class Lateness:
    """For how long others have been waiting for a process that makes no progress.

    One that waits in a collective which another has yet to begin is not late, however long the other one takes; and
    when that has begun it, news of the one that waited may still be on the way.
    """

    def __init__(self) -> None:
        self._progress: dict[int, tuple[int, int]] = {}
        self._since: dict[int, float] = {}
        """Rank of one that is behind -> when it was first seen to be so, and as far as it is now."""

    def see(self, beats: Mapping[int, Beat], now: float) -> None:
        """Take note of the newest beats of all."""
        working = {rank: beat for rank, beat in beats.items() if beat.state == "working"}
        fewest = min((beat.collectives for beat in working.values()), default=0)
        known = len(working) > 1 and fewest >= 0
        behind = [rank for rank, beat in working.items() if beat.collectives == fewest and known]
        self._since = {
            rank: self._since.get(rank, now) if self._progress.get(rank) == beats[rank].progress else now
            for rank in behind
        }
        self._progress = {rank: beat.progress for rank, beat in working.items()}

    def late(self, now: float, seconds: float) -> list[int]:
        """Ranks that have been behind, without progress, for so long."""
        return [rank for rank, since in self._since.items() if now - since >= seconds]


class Exchange:
    """Tells this process's beat and reads the others', in a thread of its own: the process that holds the store may be
    stopped, and then a question to it never returns."""

    def __init__(self, rank: int, size: int, mine: Callable[[], Beat]) -> None:
        # A connection of its own: what waits at another one keeps its lock.
        self._store: Any = distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        # Who is silent for how long is judged elsewhere.
        self._store.set_timeout(timedelta(days=1))
        self._rank, self._mine = rank, mine
        self._keys = [f"skd/beats/{each}" for each in range(size)]
        # So many questions a second reach the store that holds them all; in a large run each process asks less often.
        self._pause = max(0.5, size / 50)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="skd-beats", daemon=True)
        self.heard: dict[int, Beat] = {}
        """By rank, from the last exchange."""
        self.exchanges = 0
        self.broken = False
        """The store is gone."""

    def tell(self) -> None:
        """Write this process's beat."""
        self._store.set(self._keys[self._rank], json.dumps(asdict(self._mine())))

    def start(self) -> None:
        """Every process must have told once: the store waits for what is not there."""
        self._hear()
        self._thread.start()

    def stop(self) -> None:
        """Tell a last time."""
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._stop.wait(self._pause)
                self.tell()
                self._hear()
        except RuntimeError:
            self.broken = True

    def _hear(self) -> None:
        texts = self._store.multi_get(self._keys)
        self.heard = {rank: Beat(**json.loads(text)) for rank, text in enumerate(texts)}
        self.exchanges += 1

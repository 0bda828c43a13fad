"""Several processes that do one thing: when one ends or gets stuck, the others say which one and why, and end as well.

The first process that fails leaves one line in ``.first-cause`` of a directory of theirs. One that is killed leaves
nothing; one that is stuck is known by its beats (``skd.ranks.beats``). Both are noticed wherever the others are, also
outside of a collective.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from accelerate import PartialState

from skd.config.credentials import hidden
from skd.errors import Problem, RemoteError
from skd.faults import hooked
from skd.files import write_atomic
from skd.ranks.beats import Beat, Exchange, Lateness, State, collectives, machine, place_of
from skd.text import visible

__all__ = ["Limit", "as_one"]

CAUSE_FILE = ".first-cause"
PATIENCE_SECONDS = 2.0
"""How long the cause may take to appear, or a process that is done to leave: one writes a cause and then ends."""
GRACE_SECONDS = 1.0
"""How long a process gets to leave by an exception, which collectives and native code do not let through."""
POLL_SECONDS = 0.25
_LOST = re.compile(r"connection (closed|reset|refused|was)|broken pipe|timed out|gloo|nccl", re.IGNORECASE)
_REMEDY = "look at its output and at the memory of its machine, and resume with the same command"


@dataclass(frozen=True)
class Limit:
    """How long a process that others wait for may make no progress until it counts as stuck."""

    seconds: float
    setting: str
    """Where the user sets it."""


@contextmanager
def as_one(directory: Path, limit: Limit) -> Iterator[Callable[[int], None]]:
    """Around all that processes which have met do together; gives a function that is to be told of each step begun.

    ``directory``: the same for all on one machine, and if it can be, on all.

    Raises RemoteError (SKD-P02: another process is lost; SKD-P03: one is stuck). Where no exception gets through, the
    process ends with the same message and exit code.
    """
    state = PartialState()
    if state.num_processes == 1:
        yield lambda step: None
        return
    cause, rank = directory / CAUSE_FILE, int(state.process_index)
    peers = Peers(rank, int(state.num_processes), cause, limit)
    try:
        if state.is_main_process:
            cause.unlink(missing_ok=True)
        peers.exchange.tell()
        state.wait_for_everyone()
        with peers, hooked(peers.reached):
            yield peers.begin
    except _Ended as ended:
        raise ended.error from None
    except Exception as error:
        if _is_lost_connection(error):
            raise (peers.ended.error if peers.ended else _lost(cause, rank, peers.gone)) from error
        _leave(cause, rank, error)
        raise
    finally:
        peers.close()


class _Ended(Exception):
    """Raised in the main thread when the run has to end because of another process."""

    def __init__(self, error: RemoteError) -> None:
        super().__init__(str(error))
        self.error = error


class Peers:
    """Watches the other processes from a thread of its own."""

    def __init__(self, rank: int, size: int, cause: Path, limit: Limit) -> None:
        self._rank, self._cause, self._limit = rank, cause, limit
        self._machine, self._main = machine(), threading.get_ident()
        self._points = self._step = 0
        self._state: State = "working"
        self.ended: _Ended | None = None
        """Why the run has to end, once that is known."""
        self._warned: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="skd-peers", daemon=True)
        self._clock = _AwakeClock()
        self._lateness = Lateness()
        self._exchanges = 0, 0.0
        """How many there were, and when the last one was first seen."""
        self._lost_since: float | None = None
        self._processes: dict[int, int] = {}
        """Rank -> file descriptor of its process, on this machine."""
        self.exchange = Exchange(rank, size, self._beat)

    def begin(self, step: int) -> None:
        """This process begins a step."""
        self._step = step
        self.reached("begin")

    def reached(self, name: str) -> None:
        """This process makes progress, unless it has to end."""
        self._points += 1
        if self.ended is not None:
            raise self.ended

    def _beat(self) -> Beat:
        place = place_of(self._main)
        return Beat(self._machine, os.getpid(), self._points, collectives(), self._step, place, self._state)

    def __enter__(self) -> None:
        self.exchange.start()
        self._heard()
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "left" if kind is None or issubclass(kind, SystemExit) else "failed"
        self._stop.set()
        self.exchange.stop()
        self._thread.join(3 * GRACE_SECONDS)

    def close(self) -> None:
        """Of no use afterwards."""
        for descriptor in self._processes.values():
            os.close(descriptor)
        self._processes.clear()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            beats = self._heard()
            if self._lost_for_certain():
                self._end(_lost(self._cause, self._rank, self.gone), [])
                return
            if ranks := self._late(self._limit.seconds):
                error = self._stuck(beats, ranks)
                _leave(self._cause, self._rank, error)
                self._end(error, ranks)
                return
            self._warn(beats)

    def _heard(self) -> dict[int, Beat]:
        """The newest beats, with what follows from them noted down."""
        now = self._clock.tick()
        beats = {**self.exchange.heard, self._rank: self._beat()}
        self._lateness.see(beats, now)
        for rank, beat in beats.items():
            if rank not in self._processes and rank != self._rank and beat.machine == self._machine != "":
                with suppress(OSError, AttributeError):  # too old a kernel, or none of Linux
                    self._processes[rank] = os.pidfd_open(beat.pid)
        if self.exchange.exchanges != self._exchanges[0]:
            self._exchanges = self.exchange.exchanges, now
        return beats

    def gone(self) -> dict[int, Beat]:
        """The processes that have failed or ended before their time, as they were last heard of."""
        ended = [rank for rank, descriptor in self._processes.items() if _has_ended(descriptor)]
        return {
            rank: beat
            for rank, beat in self.exchange.heard.items()
            if rank != self._rank and (beat.state == "failed" or (rank in ended and beat.state == "working"))
        }

    def _lost_for_certain(self) -> bool:
        """Also not merely done: the last word of a process that is done may take a moment to be heard."""
        if not self.gone() and not self.exchange.broken:
            self._lost_since = None
            return False
        if self._lost_since is None:
            self._lost_since = self._clock.now
        return self._clock.now - self._lost_since >= PATIENCE_SECONDS or self._cause.exists()

    def _late(self, seconds: float) -> list[int]:
        now = self._clock.now
        if now - self._exchanges[1] >= seconds and not self.exchange.broken:
            return [0]  # it holds the store
        return self._lateness.late(now, seconds)

    def _stuck(self, beats: dict[int, Beat], ranks: Collection[int]) -> RemoteError:
        found = f"{_named(beats, ranks)} made no progress for {self._limit.seconds:g} s ({self._limit.setting})"
        if self._rank not in ranks:
            found += f"; this process was at {beats[self._rank]}"
        return RemoteError(Problem("SKD-P03", f"rank {self._rank}", found, _REMEDY))

    def _warn(self, beats: dict[int, Beat]) -> None:
        """Say, once, that half of the limit is over."""
        ranks = self._late(self._limit.seconds / 2) if self._rank == 0 else []
        if ranks and ranks != self._warned:
            found = f"{_named(beats, ranks)} made no progress for {self._limit.seconds / 2:g} s"
            remedy = f"the run ends after {self._limit.seconds:g} s, which is {self._limit.setting}"
            _tell(Problem("SKD-P05", f"rank {self._rank}", found, remedy).line("warning"))
        self._warned = ranks

    def _end(self, error: RemoteError, stuck: Collection[int]) -> None:
        """End this process, and those on this machine that are stuck: nobody else may."""
        self.ended = _Ended(error)
        # One that is stuck in Python sees so itself, and gets twice the time to say it.
        left = self._stop.wait(GRACE_SECONDS)
        if self._rank not in stuck:
            left = self._stop.wait(GRACE_SECONDS if stuck else 0) or left
            for rank in set(stuck) & self._processes.keys():
                with suppress(OSError):
                    signal.pidfd_send_signal(self._processes[rank], signal.SIGKILL)
        if not left:
            _tell(str(error))
            os._exit(error.exit_code)


class _AwakeClock:
    """Seconds during which this process could run: one that was stopped itself has no right to call others late."""

    def __init__(self) -> None:
        self.now, self._last = 0.0, time.monotonic()

    def tick(self) -> float:
        passed = time.monotonic()
        self.now += min(passed - self._last, 4 * POLL_SECONDS)
        self._last = passed
        return self.now


def _has_ended(descriptor: int) -> bool:
    """Also when its parent has not yet asked how."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _named(beats: Mapping[int, Beat], ranks: Iterable[int]) -> str:
    return " and ".join(f"rank {rank} (last heard of at {beats[rank]})" for rank in ranks if rank in beats)


def _tell(text: str) -> None:
    with suppress(OSError):
        print(visible(hidden(text)), file=sys.stderr, flush=True)


def _is_lost_connection(error: Exception) -> bool:
    """Whether an error is that of a collective whose peers have gone: torch raises RuntimeErrors of several classes."""
    told = type(error).__name__.startswith("Dist") or _LOST.search(str(error))
    return isinstance(error, RuntimeError) and bool(told)


def _leave(cause: Path, rank: int, error: Exception) -> None:
    first = str(error).strip().splitlines()
    text = json.dumps({"rank": rank, "cause": first[0] if first else type(error).__name__})
    with suppress(OSError):
        if not cause.exists():
            write_atomic(cause, text)


def _lost(cause: Path, rank: int, gone: Callable[[], Mapping[int, Beat]]) -> RemoteError:
    """Waits a moment for what tells the cause: the word of the first process that failed, or the end of one that could
    leave none."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and not cause.exists() and not gone():
        time.sleep(0.05)
    found = "lost another process of the run, which left no word: it was killed, or is stuck"
    if lost := gone():
        failed = any(beat.state == "failed" for beat in lost.values())
        how = "failed, as its own output says" if failed else "ended without a word: it was killed"
        found = f"{_named(lost, lost)} {how}"
    with suppress(OSError, ValueError, LookupError, TypeError):
        left = json.loads(cause.read_text(encoding="utf-8"))
        found = f"stopped because rank {left['rank']} did: {left['cause']}"
    error = RemoteError(Problem("SKD-P02", f"rank {rank}", found, _REMEDY))
    if lost:
        _leave(cause, rank, error)
    return error

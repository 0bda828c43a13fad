"""Runs of ``skd`` in forked children: torch is imported once, by the parent, and every trial starts from there."""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skd import cli, faults

__all__ = ["LIMIT_SECONDS", "Child", "Ended", "fork", "start", "train"]

LIMIT_SECONDS = 120.0
"""A run that takes longer than this hangs: the toy takes seconds, also on a busy machine."""
_POLL_SECONDS = 0.002
_NAME_BYTES = 64

Prepare = Callable[[], None]
Hook = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Exit code, or minus the signal that ended it."""
    point: str
    """The last fault point that it reached; empty before the first."""
    output: str
    """Standard output and error together."""
    seconds: float
    hung: bool = False
    """It ran past its limit and was killed for it."""


@dataclass(frozen=True)
class Child:
    """A child that may still be running."""

    pid: int
    log: Path
    started: float
    shared: mmap.mmap
    """The name of the last fault point, in memory that outlives the child."""

    def wait(self, limit: float = LIMIT_SECONDS, *, kill_after: float | None = None) -> Ended:
        """Wait until it ends; with ``kill_after`` it is killed that many seconds after its start, unless it ended."""
        deadline = self.started + (limit if kill_after is None else kill_after)
        status = self._status_before(deadline)
        killed = status is None
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            status = os.waitpid(self.pid, 0)[1]
        return Ended(
            os.waitstatus_to_exitcode(status),
            self.point(),
            self.log.read_text(errors="replace"),
            time.monotonic() - self.started,
            hung=killed and kill_after is None,
        )

    def _status_before(self, deadline: float) -> int | None:
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            time.sleep(_POLL_SECONDS)
        return None

    def point(self) -> str:
        """The last fault point it reached so far."""
        return bytes(self.shared[:_NAME_BYTES]).rstrip(b"\0").decode()

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def fork(work: Callable[[], int | None], directory: Path, *, hook: Hook | None = None, log: str = "log") -> Child:
    """Run ``work`` in a child, in ``directory``, with its output in the file ``log``; its result is the exit code."""
    directory.mkdir(parents=True, exist_ok=True)
    shared = mmap.mmap(-1, _NAME_BYTES)
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        os._exit(_in_child(work, directory / log, hook, shared))
    return Child(pid, directory / log, started, shared)


def _in_child(work: Callable[[], int | None], log: Path, hook: Hook | None, shared: mmap.mmap) -> int:
    def reached(name: str) -> None:
        shared[:_NAME_BYTES] = name.encode().ljust(_NAME_BYTES, b"\0")
        if hook is not None:
            hook(name)

    try:
        os.chdir(log.parent)
        output = os.open(log.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        with faults.hooked(reached):
            code = work() or 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def start(
    directory: Path, arguments: Sequence[str], *, hook: Hook | None = None, prepare: Prepare | None = None
) -> Child:
    """Run ``skd ARGUMENTS`` in a child, after ``prepare``."""

    def work() -> int:
        if prepare is not None:
            prepare()
        return cli.main(list(arguments))

    return fork(work, directory, hook=hook)


def train(
    directory: Path,
    config: Mapping[str, Any],
    *arguments: str,
    hook: Hook | None = None,
    prepare: Prepare | None = None,
) -> Child:
    """Start or resume the training of a config in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and has no anchors that two equal sections would become.
    (directory / "run.yaml").write_text(json.dumps(config))
    return start(directory, ["train", "run.yaml", *arguments], hook=hook, prepare=prepare)

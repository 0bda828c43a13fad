"""math-verify behind a process that can be killed: hard limits on time and memory, whatever the text makes it do."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from types import TracebackType

__all__ = ["MathVerify"]

_START_SECONDS = 120.0
"""Python, sympy and math-verify on a busy machine."""
_GRACE_SECONDS = 10.0
"""The keeper only passes lines on; that it is late means the machine is, or that it is gone."""


class MathVerify:
    """Asks math-verify whether two answers are equal.

    The text is judged in a process of its own, killed with SIGKILL after ``limit_seconds`` and replaced. No signals
    and no threads here, so it works anywhere.

    Args:
        limit_seconds: wall time of one question.
        memory_bytes: address space of the process that judges.
    """

    def __init__(self, limit_seconds: float = 2.0, memory_bytes: int = 1 << 30) -> None:
        self.limit_seconds, self.memory_bytes = limit_seconds, memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether the package is there (extra ``eval``)."""
        return find_spec("math_verify") is not None

    def __enter__(self) -> MathVerify:
        """Start the process, so that the first question does not wait for it."""
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def verdict(self, answer: str, reference: str) -> str:
        """equal, different, timeout or grader-error."""
        try:
            process = self._process or self._start()
            request = json.dumps({"answer": answer, "reference": reference}).encode() + b"\n"
            assert process.stdin is not None
            process.stdin.write(request)
            process.stdin.flush()
            return str(json.loads(self._line(process, self.limit_seconds + _GRACE_SECONDS))["verdict"])
        except (OSError, ValueError, KeyError, TimeoutError):
            self.close()
            return "grader-error"

    def close(self) -> None:
        """End the process and its child."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        # The keeper leaves when its input ends, and takes the child along; it may be waiting for one that hangs.
        try:
            process.wait(self.limit_seconds + 1)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "skd.evaluate.worker_process", str(self.limit_seconds), str(self.memory_bytes)]
        # A session of its own, so that keeper and child end together; nothing of the environment but the import path.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        self._process = process
        if not json.loads(self._line(process, _START_SECONDS)).get("ready"):
            raise ValueError("the grader did not start")
        return process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert process.stdout is not None
        descriptor, deadline, line = process.stdout.fileno(), time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            part = os.read(descriptor, 4096)
            if not part:
                raise ValueError("the grader ended")
            line += part
        return line

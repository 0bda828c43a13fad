"""The process in which math-verify runs: a keeper that answers for a child which it may kill at any moment.

    python -m skd.evaluate.worker_process SECONDS BYTES

Lines of JSON in ({"answer", "reference"}), lines of JSON out ({"verdict"}), one for one. The keeper never looks into
what it passes on. It forks a child with math-verify already loaded, so that a new one costs milliseconds. A child that
exceeds the time is killed with SIGKILL: no signal handler, no thread. It cannot write files, open sockets or start
processes, and has its memory limited.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

_FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "pty.",
    "ctypes.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink",
    "os.truncate", "os.kill", "os.putenv", "shutil.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "mmap.",
)  # fmt: skip
"""Audit events (https://docs.python.org/3/library/audit_events.html) that grading has no use for."""
FORBIDDEN_EXIT = 13
_REQUESTS_PER_CHILD = 500
"""sympy's caches grow; a fresh child starts without them."""

Judge = Callable[[str, str], str]


def _load() -> Judge:
    """math-verify's verdict on two answers in mathematical notation, without its own time limit (SIGALRM)."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    forms = [LatexExtractionConfig(), ExprExtractionConfig()]

    def judge(answer: str, reference: str) -> str:
        gold = parse(f"${reference}$", forms, parsing_timeout=None)
        given = parse(f"${answer}$", forms, parsing_timeout=None)
        return "equal" if gold and given and verify(gold, given, timeout_seconds=None) else "different"

    # The first use of each part builds tables that every child then has.
    for pair in ((r"\frac{1}{2}", "0.5"), (r"\{1,2\}", r"\{2,1\}"), ("x=5", "5"), ("[1,2)", "x^2"), (r"\sin(x)", "1")):
        judge(*pair)
    return judge


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook of a child. It cannot be removed, and neither exception handler nor finally clause runs after it."""
    if event == "open":
        _, mode, flags = arguments
        forbidden = bool(set(mode or "") & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    else:
        forbidden = event.startswith(_FORBIDDEN)
    if forbidden:
        os._exit(FORBIDDEN_EXIT)


def _confine(seconds: float, memory_bytes: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, int(seconds * _REQUESTS_PER_CHILD) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    sys.addaudithook(_forbid)


def _serve(judge: Judge, requests: int, answers: int) -> None:
    """The child: one answer per request, until the keeper closes the pipe."""
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            request = json.loads(line)
            try:
                verdict = judge(request["answer"], request["reference"])
            except MemoryError:
                os._exit(1)
            except Exception:
                verdict = "grader-error"
            os.write(answers, json.dumps({"verdict": verdict}).encode() + b"\n")


class _Child:
    """A forked process that judges."""

    def __init__(self, judge: Judge, seconds: float, memory_bytes: int) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        self.served = 0
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._requests)
                os.close(self._answers)
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0)
                os.dup2(null, 1)
                _confine(seconds, memory_bytes)
                _serve(judge, requests, answers)
            finally:
                os._exit(0)
        os.close(requests)
        os.close(answers)

    def ask(self, line: bytes, seconds: float) -> bytes | None:
        """The answer to a request; b"" when the child died, None when the time is over."""
        self.served += 1
        deadline, answer = time.monotonic() + seconds, b""
        try:
            os.write(self._requests, line)
        except BrokenPipeError:
            return b""
        while not answer.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                return None
            part = os.read(self._answers, 4096)
            if not part:
                return b""
            answer += part
        return answer

    def end(self) -> int:
        """Kill it, if it still lives, and return its exit status."""
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self._requests)
        os.close(self._answers)
        return os.waitstatus_to_exitcode(status)


def main(seconds: float, memory_bytes: int) -> None:
    """Serve until standard input ends."""
    judge = _load()
    child = _Child(judge, seconds, memory_bytes)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin.buffer:
        answer = child.ask(line, seconds)
        if not answer:
            status = child.end()
            reason = "forbidden" if status == FORBIDDEN_EXIT else "died"
            verdict = {"verdict": "timeout"} if answer is None else {"verdict": "grader-error", "reason": reason}
            answer = json.dumps(verdict).encode() + b"\n"
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
        if b"verdict" in answer and (b"timeout" in answer or b"reason" in answer):
            child = _Child(judge, seconds, memory_bytes)
        elif child.served >= _REQUESTS_PER_CHILD:
            child.end()
            child = _Child(judge, seconds, memory_bytes)
    child.end()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))

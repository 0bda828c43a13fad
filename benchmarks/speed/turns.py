"""Contestants in processes of their own, and the turns they take."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed import protocol

__all__ = ["Contest", "rivals_python", "taken"]

_HERE = Path(__file__).parent
_ENVIRONMENT = _HERE.parents[1] / ".venv-bench"


def rivals_python(say: Callable[[str], None]) -> Path:
    """The interpreter of the rivals' environment, which is made when it is not there."""
    python, ready = _ENVIRONMENT / "bin" / "python", _ENVIRONMENT / ".ready"
    constraints = _HERE / "constraints.txt"
    if not ready.exists() or ready.read_text() != constraints.read_text():
        say(f"making the rivals' environment in {_ENVIRONMENT.name} (some minutes)")
        subprocess.run([sys.executable, "-m", "venv", _ENVIRONMENT], check=True)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--constraint",
            constraints,
            "torch",
            "trl",
            "peft",
        ]
        subprocess.run(install, check=True)
        ready.write_text(constraints.read_text())
    return python


class Contest:
    """A process that waits for its turns."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
        environment["TOKENIZERS_PARALLELISM"] = "false"
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.names: list[str] = self._hear()["ready"]

    def turn(self, name: str) -> dict[str, Any]:
        """One turn of a contestant in this process."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return self._hear()

    def close(self) -> None:
        """No more turns."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if (told := protocol.heard(line)) is not None:
                return told
        raise SystemExit(f"a contestant ended early, with exit status {self._process.wait()}; see its message above")


def taken(
    commands: Sequence[Sequence[str | Path]], rounds: int, warm_up: bool, seconds: float
) -> dict[str, list[dict[str, Any]]]:
    """Every contestant once per round, in turns, after one round that does not count where they warm up.

    After ``seconds`` no further round begins; a round that has begun is ended. So a slow machine has fewer turns, and
    where even the first round was too long, that one counts.
    """
    with ExitStack() as stack:
        contests = [stack.enter_context(_open(command)) for command in commands]
        found: dict[str, list[dict[str, Any]]] = {name: [] for contest in contests for name in contest.names}
        started = time.monotonic()
        for _ in range(rounds + warm_up):
            if time.monotonic() - started > seconds:
                break
            for contest in contests:
                for name in contest.names:
                    found[name].append(contest.turn(name))
    return {name: turns[warm_up:] or turns for name, turns in found.items()}


@contextmanager
def _open(command: Sequence[str | Path]) -> Iterator[Contest]:
    contest = Contest(command)
    try:
        yield contest
    finally:
        contest.close()

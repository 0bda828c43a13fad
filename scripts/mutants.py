"""Break the core on purpose, one fault at a time, and see that the tests notice: ``make mutants``.

Each mutant of ``scripts.mutant_table`` replaces one exact piece of a source file in a temporary copy of the tree and
runs the few test files that must fail. A mutant that survives, a piece that is no longer there, or tests that fail
without any mutant make the run fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.findings import ROOT

__all__ = ["KILLED", "Mutant", "Outcome", "run"]

KILLED, SURVIVED, BROKEN = "killed", "SURVIVED", "BROKEN"

_COPIED = ("src", "tests", "scripts", "recipes", "pyproject.toml")
_TESTS_PASSED, _TESTS_FAILED = 0, 1  # pytest's exit statuses; every other one says that the tests could not be run
_LIMIT_SECONDS = 600.0


@dataclass(frozen=True)
class Mutant:
    """One planted fault."""

    name: str
    path: str
    """File relative to the repository."""
    old: str
    """Piece of the file; it must occur exactly once."""
    new: str
    tests: tuple[str, ...]
    """pytest arguments: the tests that must notice."""


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant."""

    name: str
    state: str
    """KILLED, SURVIVED or BROKEN."""
    detail: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.state:<9} {self.seconds:6.1f} s  {self.name}: {self.detail}"


@contextmanager
def _copy(root: Path) -> Iterator[Path]:
    """A temporary copy of what the tests need."""
    with tempfile.TemporaryDirectory(prefix="skd-mutants-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.is_file():
                shutil.copy2(source, copy / name)
        yield copy


def _pytest(copy: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """(pytest's exit status, its last line) in the copy; None when it ran into the time limit."""
    # Byte code is keyed by modification time in whole seconds: a patch within the same second would not be seen.
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"no end within {_LIMIT_SECONDS:.0f} s"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else "no output"


def _judge(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """(state, detail) of one mutant; the file is put back afterwards."""
    path = copy / mutant.path
    original = path.read_text(encoding="utf-8") if path.is_file() else ""
    if (count := original.count(mutant.old)) != 1:
        return BROKEN, f"the piece to replace occurs {count} times in {mutant.path}; bring the mutant up to date"
    path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        status, last_line = _pytest(copy, mutant.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    if status == _TESTS_PASSED:
        return SURVIVED, f"{' '.join(mutant.tests)} passed all the same"
    return (KILLED if status in (_TESTS_FAILED, None) else BROKEN), last_line


def run(root: Path, mutants: Sequence[Mutant]) -> Iterator[Outcome]:
    """The outcome of the unbroken tree, then of each mutant, as they come. A broken start ends the run."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    with _copy(root) as copy:
        start = time.monotonic()
        status, last_line = _pytest(copy, tests)
        state = KILLED if status == _TESTS_PASSED else BROKEN
        yield Outcome("(no mutant)", "passed" if state == KILLED else BROKEN, last_line, time.monotonic() - start)
        for mutant in mutants if state == KILLED else ():
            start = time.monotonic()
            yield Outcome(mutant.name, *_judge(copy, mutant), time.monotonic() - start)


def main(root: Path, mutants: Sequence[Mutant]) -> int:
    """Print every outcome; 0 when each mutant was killed, else 1 (an exit status)."""
    outcomes = []
    for outcome in run(root, mutants):
        print(outcome, flush=True)
        outcomes.append(outcome)
    killed = sum(outcome.state == KILLED for outcome in outcomes)
    print(f"mutants: {killed} of {len(mutants)} killed")
    return 0 if killed == len(mutants) else 1


if __name__ == "__main__":
    from scripts.mutant_table import MUTANTS

    sys.exit(main(ROOT, MUTANTS))

"""``skd evaluate --grade FILE``: verdicts on answers that somebody else's program wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skd.errors import DataError, Problem
from skd.evaluate.answers import stated_answer
from skd.evaluate.grader import Grader
from skd.evaluate.worker import MathVerify

__all__ = ["NO_MATH_VERIFY", "Pair", "grade_file", "open_grader", "read_pairs"]

NO_MATH_VERIFY = (
    "math-verify is not installed, so answers that only it can compare count as different; "
    "install it with: pip install 'skd[eval]'"
)
SHOWN = 5
"""Problems of a file that are listed; the others are counted."""


@dataclass(frozen=True)
class Pair:
    """An answer, None for none, and what it should be."""

    answer: str | None
    reference: str


@contextmanager
def open_grader() -> Iterator[Grader]:
    """A grader with math-verify where it is installed; its process starts at the first answer that needs it."""
    if not MathVerify.is_installed():
        yield Grader()
        return
    worker = MathVerify()
    try:
        yield Grader(worker)
    finally:
        worker.close()


def grade_file(path: Path) -> Iterator[dict[str, str]]:
    """One verdict for each line of a JSON Lines file with ``answer`` and ``reference``, in order.

    Either may be a whole response: its last balanced box, the number after ``####``, or what follows "answer is" is
    taken. Raises DataError with the problems of the file before anything is graded.
    """
    pairs = read_pairs(path)
    with open_grader() as grader:
        for pair in pairs:
            stated = None if pair.answer is None else stated_answer(pair.answer)
            verdict = grader.grade(stated, stated_answer(pair.reference) or "")
            yield {"verdict": verdict.name, "tier": verdict.tier}


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file. Raises DataError: SKD-D01 to D04 for the file, SKD-E10 for references without an answer."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(Problem("SKD-D01", str(path), f"cannot be read ({error.strerror})", "correct it")) from None
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#04x} at offset {error.start} is not UTF-8"
        raise DataError(Problem("SKD-D03", str(path), found, "save the file as UTF-8")) from None
    read = [_pair(f"{path}:{n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    problems = [item for item in read if isinstance(item, Problem)]
    if not read:
        problems = [Problem("SKD-D01", str(path), "the file holds no rows", "give a file with at least one")]
    if len(problems) > SHOWN:
        found = f"{len(problems) - SHOWN} more lines with problems, {len(problems)} in all"
        problems = [*problems[:SHOWN], Problem("SKD-D04", str(path), found, "correct them, too")]
    if problems:
        raise DataError(problems)
    return [item for item in read if isinstance(item, Pair)]


def _pair(place: str, line: str) -> Pair | Problem:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        return Problem("SKD-D02", place, "not JSON", 'write {"answer": "...", "reference": "..."}')
    if not isinstance(row, dict) or "answer" not in row or "reference" not in row:
        return Problem("SKD-D04", place, "has no answer and reference", "write an object with both")
    answer, reference = (_text(row[key]) for key in ("answer", "reference"))
    if reference is None or (answer is None and row["answer"] is not None):
        return Problem("SKD-D04", place, "answer or reference is no text", "write both as text; answer may be null")
    if not (stated_answer(reference) or "").strip():
        return Problem("SKD-E10", place, "the reference states no answer", "correct the reference or remove the line")
    return Pair(answer, reference)


def _text(value: Any) -> str | None:
    """Text, also of a number; None for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

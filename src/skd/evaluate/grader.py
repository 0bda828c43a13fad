r"""Whether a mathematical answer equals its reference, by tiers from cheap and certain to slow.

1. One text in one spelling (``\frac12`` and ``\frac{1}{2}``), words up to case.
2. One exact value: numbers, closed forms, points, intervals, sets, matrices (``skd.evaluate.expressions``).
3. math-verify, in a process that can be killed (``skd.evaluate.worker``).

No tolerance: 0.333 is not 1/3. Units may be left out; two different ones differ. A percent sign may be left out, and
50 % is also 0.5; no factor of 100 is forgiven otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from skd.evaluate.expressions import value_of
from skd.evaluate.notation import Plain, plain, same_words
from skd.evaluate.polynomials import Unsupported
from skd.evaluate.values import ClosedForm, same
from skd.evaluate.worker import MathVerify

__all__ = ["MAX_CHARACTERS", "Grader", "Verdict", "VerdictName"]

VerdictName = Literal["equal", "different", "timeout", "no-answer", "grader-error"]
MAX_CHARACTERS = 2000
"""A longer answer is compared as text and never parsed."""


@dataclass(frozen=True)
class Verdict:
    """What was found, and the tier that found it."""

    name: VerdictName
    tier: str
    """text, words, value, length, math-verify; undecided where only math-verify could tell and it is not there."""


class Grader:
    """Grades answers. ``worker``: math-verify; None for the tiers that need no other process."""

    def __init__(self, worker: MathVerify | None = None) -> None:
        self.worker = worker

    def grade(self, answer: str | None, reference: str) -> Verdict:
        """The verdict on an answer as it was extracted; None stands for no answer."""
        if answer is None or not answer.strip():
            return Verdict("no-answer", "text")
        if max(len(answer), len(reference)) > MAX_CHARACTERS:
            return Verdict("equal" if answer.strip() == reference.strip() else "different", "length")
        given, wanted = plain(answer), plain(reference)
        return _by_text(given, wanted) or _by_value(given, wanted) or self._by_worker(given, wanted)

    def _by_worker(self, given: Plain, wanted: Plain) -> Verdict:
        if not (given.is_mathematics and wanted.is_mathematics):
            return Verdict("different", "words")
        if self.worker is None:
            return Verdict("different", "undecided")
        name = self.worker.verdict(given.text, wanted.text)
        if name == "equal" and _units_differ(given, wanted):
            name = "different"
        return Verdict(name, "math-verify")  # type: ignore[arg-type]


def _by_text(given: Plain, wanted: Plain) -> Verdict | None:
    if given.key and given.key == wanted.key:
        return Verdict("different" if _units_differ(given, wanted) else "equal", "text")
    if not re.search("[A-Za-z0-9]|" + re.escape(r"\{\}"), given.text):
        return Verdict("no-answer", "text")
    words, wanted_words = given.words, wanted.words
    if words is not None and wanted_words is not None and same_words(words, wanted_words):
        return Verdict("equal", "words")
    if words is not None:
        # A sentence in place of an answer, such as a refusal.
        return Verdict("no-answer" if len(words.split()) > 2 else "different", "words")
    return Verdict("different", "words") if wanted_words is not None else None


def _by_value(given: Plain, wanted: Plain) -> Verdict | None:
    based = _based(given.key, wanted.key)
    if based is not None:
        return Verdict("equal" if based else "different", "value")
    try:
        first, second = value_of(given.text), value_of(wanted.text)
    except (Unsupported, RecursionError):
        return None
    equal = same(first, second)
    if equal is False and given.percent != wanted.percent:
        number, hundredth = (second, first) if given.percent else (first, second)
        equal = same(number, _hundredth(hundredth))
    if equal is None:
        return None
    return Verdict("equal" if equal and not _units_differ(given, wanted) else "different", "value")


def _hundredth(value: object) -> ClosedForm:
    if not isinstance(value, ClosedForm):
        return ClosedForm(frozenset())
    return ClosedForm(frozenset((term, Fraction(factor) / 100) for term, factor in value.terms))


def _units_differ(given: Plain, wanted: Plain) -> bool:
    return given.unit is not None and wanted.unit is not None and given.unit != wanted.unit


def _based(given: str, wanted: str) -> bool | None:
    """Whether ``1010_2`` and another numeral are equal; None unless one has a base. The base may be left out."""
    numerals = [re.fullmatch(r"([0-9]+)(?:_\{?([2-9]|10)\}?)?", text) for text in (given, wanted)]
    if numerals[0] is None or numerals[1] is None or not (numerals[0][2] or numerals[1][2]):
        return None
    if numerals[0][1].lstrip("0") == numerals[1][1].lstrip("0"):
        return numerals[0][2] == numerals[1][2] or not (numerals[0][2] and numerals[1][2])
    try:
        first, second = (int(numeral[1][:100], int(numeral[2] or 10)) for numeral in numerals if numeral)
    except ValueError:
        return False
    return first == second

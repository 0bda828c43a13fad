r"""Finding the answer in a response: the last balanced ``\boxed{}``, the number after ``####``, the last number.

Every search is one pass over the text, so that no response can make it slow. Digits are 0 to 9 only.
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["exact_number", "last_boxed", "last_number", "number_after_marks", "stated_answer"]

_BRACES = re.compile(r"\\(boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = rf"(?:(?<![0-9A-Za-z)])[-+\u2212])?\$?(?:{_DIGITS})(?:/[1-9][0-9]*)?"
_LAST_NUMBER = re.compile(_NUMBER)
_AFTER_MARKS = re.compile(rf"####[^\n0-9.+\-\u2212$]{{0,40}}({_NUMBER})(?![0-9^*!])")
_EXACT = re.compile(rf"([-+\u2212]?)\$?({_DIGITS})(?:/([1-9][0-9]*))?")
_SAID = re.compile(r"\banswer(?:\s+is)?\s*[:=]?[ \t]*(?=\S)([^\n]{1,300})", re.IGNORECASE)
MAX_NUMBER_LENGTH = 200
"""Characters of a number; longer ones are no answers to word problems and cost the square of their length."""


def last_boxed(text: str) -> str | None:
    r"""The content of the ``\boxed{}`` that opens last among those whose braces balance; None without one.

    Escaped braces do not count. ``\fbox{}`` counts where there is no ``\boxed{}``.
    """
    opened: list[tuple[int, str | None]] = []
    found: dict[str, tuple[int, int]] = {}
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{" or match[1]:
            opened.append((match.end(), match[1]))
        elif token == "}" and opened:
            start, box = opened.pop()
            if box and start > found.get(box, (-1, -1))[0]:
                found[box] = (start, match.start())
    span = found.get("boxed") or found.get("fbox")
    return text[span[0] : span[1]] if span else None


def number_after_marks(text: str) -> str | None:
    """The number that follows the first ``####`` with a number on its line; None without one."""
    match = _AFTER_MARKS.search(text)
    return match[1] if match else None


def last_number(text: str) -> str | None:
    """The last number in a text; None without one."""
    last = None
    for match in _LAST_NUMBER.finditer(text):
        last = match[0]
    return last


def exact_number(text: str) -> Fraction | None:
    """The value of an integer, decimal or fraction such as ``-1,234.50`` or ``3/4``; None for anything else."""
    match = _EXACT.fullmatch(text.strip()) if len(text) <= MAX_NUMBER_LENGTH else None
    if match is None:
        return None
    value = Fraction(match[2].replace(",", "")) / int(match[3] or 1)
    return -value if match[1] in ("-", "\u2212") else value


def stated_answer(text: str) -> str | None:
    r"""What a response states as its answer, or the whole text where nothing marks one.

    A box counts before ``####``. None for a text that opens a box and never closes one, and for ``####`` without
    anything behind it.
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    if re.search(r"\\boxed\s*\{", text):
        return None
    _, marks, after = text.partition("####")
    if marks:
        return number_after_marks(text) or after.strip().partition("\n")[0] or None
    said = [match[1] for match in _SAID.finditer(text)]
    return said[-1] if said else text

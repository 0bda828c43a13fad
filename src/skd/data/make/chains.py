"""Re-computing what a worked solution claims: every ``a op b = c`` in a text, exactly and without evaluating code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

__all__ = ["follows", "value_of"]

_TOKEN = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?|\.\d+)|(?P<operator>[-+*/()=%])|(?P<word>[^\W\d_]+)|(?P<other>\S)")
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "$": None, "£": None, "€": None})
_TIMES = re.compile(r"(?<=[\d)])[xX](?=[\d(])|(?<=\s)[xX]\s+(?=[\d(])")
_PER = re.compile(r"(?<=[^\W\d_])/(?=[^\W\d_])")
"""The slash of "12 minutes/batch"."""
_POINT = re.compile(r"^\s*[-–*•]\s+")
"""What opens a line of a list; no minus."""
_BINARY = {"+", "-", "*", "/"}

Token = tuple[str, str]
"""(kind, text)."""


def follows(chain: str, answer: str) -> bool:
    """Whether every equation of ``chain`` holds, there is one with an operation, and one of the results is ``answer``.

    A result may be rounded to the decimals that it is written with. An equation that cannot be read counts as wrong:
    better to lose a row than to teach a wrong one.
    """
    claims = [claim for line in chain.splitlines() if not line.startswith("####") for claim in _claims(line)]
    results = {_plain(_text(right).removesuffix("%")) for _, right in claims}
    return bool(claims) and all(_holds(left, right) for left, right in claims) and _plain(answer) in results


def value_of(expression: str) -> Fraction | None:
    """The exact value of an expression of numbers, ``+ - * / ( )`` and ``%``; None when it is none."""
    return _value(_tokens(expression))


def _value(tokens: Sequence[Token]) -> Fraction | None:
    return _Reader(tokens).value()


def _text(tokens: Sequence[Token]) -> str:
    return "".join(text for _, text in tokens)


def _plain(number: str) -> str:
    return number.replace(",", "").removesuffix(".0")


def _tokens(text: str) -> list[Token]:
    found = _TOKEN.finditer(_PER.sub(" ", _TIMES.sub("*", text.translate(_SIGNS))))
    return [(match.lastgroup or "", match.group()) for match in found]


def _claims(line: str) -> Iterator[tuple[Sequence[Token] | None, Sequence[Token]]]:
    """(left side, right number) of every ``=``; the left side is None where no operation can be read."""
    tokens = _tokens(_POINT.sub("", line))
    for place, token in enumerate(tokens):
        if token == ("operator", "="):
            yield _left_of(tokens[:place]), _right_of(tokens[place + 1 :])


def _left_of(tokens: Sequence[Token]) -> Sequence[Token] | None:
    """The longest end of ``tokens`` that alternates numbers, units and operators, without its units."""
    taken: list[Token] = []
    units = 0
    for kind, text in reversed(tokens):
        if kind == "word" and (not taken or taken[-1][1] in _BINARY) and units < 3:
            units += 1  # as in "220 meters / 2 meters per plant"
            continue
        if kind == "word" or kind == "other" or text == "=" or (kind == "number" and taken and taken[-1][0] == kind):
            break
        taken.append((kind, text))
        units = 0
    signed = len(taken) == len(tokens) and taken[-1:] == [("operator", "-")]
    while taken and taken[-1][1] in {*_BINARY, ")", "%"} and not signed:
        taken.pop()
    taken.reverse()
    chained = len(taken) == 1 and len(tokens) > 1 and ("operator", "=") in tokens
    return taken if chained or any(text in _BINARY for _, text in taken) else None


def _right_of(tokens: Sequence[Token]) -> Sequence[Token]:
    """The number that stands first in ``tokens``, with its sign and percent sign."""
    sign = tokens[:1] if tokens[:1] == [("operator", "-")] else []
    number = [token for token in tokens[len(sign) : len(sign) + 1] if token[0] == "number"]
    end = len(sign) + len(number)
    percent = [token for token in tokens[end : end + 1] if number and token[1] == "%"]
    return [*sign, *number, *percent] if number else []


def _holds(left: Sequence[Token] | None, right: Sequence[Token]) -> bool:
    value, claimed = _value(left or []), _value(right)
    if value is None or claimed is None:
        return False
    decimals = sum(len(text.partition(".")[2]) for _, text in right) + 2 * (right[-1][1] == "%")
    return abs(value - claimed) <= (Fraction(1, 2 * 10**decimals) if "." in _text(right) else 0)


class _Reader:
    """Recursive descent over tokens."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = list(tokens)
        self._place = 0

    def value(self) -> Fraction | None:
        try:
            value = self._sum()
        except (ValueError, ZeroDivisionError):
            return None
        return value if self._place == len(self._tokens) else None

    def _next(self) -> str:
        return self._tokens[self._place][1] if self._place < len(self._tokens) else ""

    def _take(self) -> str:
        text = self._next()
        self._place += 1
        return text

    def _sum(self) -> Fraction:
        value = self._product()
        while self._next() in ("+", "-"):
            value = value + self._product() if self._take() == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while self._next() in ("*", "/"):
            value = value * self._factor() if self._take() == "*" else value / self._factor()
        return value

    def _factor(self) -> Fraction:
        text = self._take()
        if text == "-":
            return -self._factor()
        if text == "(":
            value = self._sum()
            if self._take() != ")":
                raise ValueError
        else:
            value = Fraction(_plain(text))
        if self._next() == "%":
            self._take()
            value /= 100
        return value

"""The task ``sums``: two numbers added digit by digit, from the right, with the carries spoken, and then the sum.

``3 8 7 + 4 6 5 =`` becomes ``7 + 5 = 1 2 ; 1 + 8 + 6 = 1 5 ; 1 + 3 + 4 = 8 # 8 5 2``: a mistake in a step stays
in all that follow, as in worked solutions of arithmetic.
"""

from __future__ import annotations

from skd.data.rows import Draws, Row, Split, distinct_rows

__all__ = ["WORDS", "rows", "score", "worked"]

LIMIT = 1000
"""Addends are 100 .. LIMIT - 1."""

WORDS: tuple[str, ...] = ("=", "+", ";", "#", *map(str, range(10)))
"""Every word of prompts and responses, once."""


def worked(a: int, b: int) -> str:
    """The steps of a + b and its digits; both with three digits, ValueError otherwise."""
    if not (100 <= a < LIMIT and 100 <= b < LIMIT):
        raise ValueError(f"{a} and {b} are not both in 100 .. {LIMIT - 1}")
    steps, carry = [], 0
    for i, j in zip(reversed(_digits(a)), reversed(_digits(b)), strict=True):
        total = carry + int(i) + int(j)
        terms = [*(["1"] if carry else []), i, j]
        steps.append(f"{' + '.join(terms)} = {' '.join(_digits(total))}")
        carry = total // 10
    return f"{' ; '.join(steps)} # {' '.join(_digits(a + b))}"


def _digits(number: int) -> list[str]:
    return list(str(number))


def _draw(draws: Draws) -> Row:
    a, b = (100 + draws.below(LIMIT - 100) for _ in range(2))
    return Row(f"{' '.join(_digits(a))} + {' '.join(_digits(b))} =", worked(a, b))


def rows(split: Split, size: int, seed: int) -> list[Row]:
    """``size`` distinct sums of ``split`` with their steps."""
    return distinct_rows(_draw, split, size, seed)


def score(row: Row, response_text: str) -> bool:
    """Whether the digits after the last ``#`` are the sum's, whatever the steps say."""
    _, mark, answer = response_text.rpartition("#")
    return bool(mark) and answer.split() == (row.response or "").rpartition("#")[2].split()

"""The task ``number_words``: English number words to German morphemes, 1 .. 999,999,999.

``four hundred twenty one =`` becomes ``vier hundert ein und zwanzig``. German swaps units and tens and inflects "one"
by what follows it (eins, ein, eine), so that the answer is a short translation that anyone can check.
"""

from __future__ import annotations

from skd.data.rows import Draws, Row, Split, distinct_rows

__all__ = ["LIMIT", "WORDS", "english", "german", "rows", "score"]

LIMIT = 10**9
"""Numbers are 1 .. LIMIT - 1."""

# fmt: off
_ENGLISH_SMALL = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_ENGLISH_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_GERMAN_UNITS = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
_GERMAN_TENS = ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
_GERMAN_TEENS = (
    ["zehn"], ["elf"], ["zwölf"], ["drei", "zehn"], ["vier", "zehn"], ["fünf", "zehn"], ["sech", "zehn"],
    ["sieb", "zehn"], ["acht", "zehn"], ["neun", "zehn"],
)  # fmt: skip

WORDS: tuple[str, ...] = (
    "=",
    *_ENGLISH_SMALL,
    *_ENGLISH_TENS,
    *["hundred", "thousand", "million"],
    *_GERMAN_UNITS,
    *["ein", "eine", "zehn", "elf", "zwölf", "sech", "sieb", "und", "hundert", "tausend", "millionen"],
    *_GERMAN_TENS,
)
"""Every word of prompts and responses, once (English and German share ``million``)."""


def _groups(n: int) -> tuple[int, int, int]:
    if not 1 <= n < LIMIT:
        raise ValueError(f"{n} is not in 1 .. {LIMIT - 1}")
    return n // 1_000_000, n // 1000 % 1000, n % 1000


def _english_below_1000(n: int) -> list[str]:
    hundreds, rest = divmod(n, 100)
    words = [_ENGLISH_SMALL[hundreds - 1], "hundred"] if hundreds else []
    if rest >= 20:
        words.append(_ENGLISH_TENS[rest // 10 - 2])
        rest %= 10
    return [*words, _ENGLISH_SMALL[rest - 1]] if rest else words


def english(n: int) -> str:
    """American English number words without "and" and hyphens; ValueError outside 1 .. 999,999,999."""
    words: list[str] = []
    for group, name in zip(_groups(n), ("million", "thousand", ""), strict=True):
        if group:
            words += [*_english_below_1000(group), name]
    return " ".join(words).strip()


def _german_below_100(n: int, one: str) -> list[str]:
    tens, units = divmod(n, 10)
    if n < 10:
        return [one if n == 1 else _GERMAN_UNITS[n - 1]]
    if n < 20:
        return list(_GERMAN_TEENS[n - 10])
    before = ["ein" if units == 1 else _GERMAN_UNITS[units - 1], "und"] if units else []
    return [*before, _GERMAN_TENS[tens - 2]]


def _german_below_1000(n: int, one: str) -> list[str]:
    """``one`` is the form of 1 where it stands last: eins alone, ein before tausend, eine before million(en)."""
    hundreds, rest = divmod(n, 100)
    words = ["ein" if hundreds == 1 else _GERMAN_UNITS[hundreds - 1], "hundert"] if hundreds else []
    return words + _german_below_100(rest, one) if rest else words


def german(n: int) -> str:
    """German number word in morphemes separated by spaces; ValueError outside 1 .. 999,999,999.

    Forms as in the German spell-out rules of Unicode CLDR: ``ein hundert``, ``ein tausend``, ``eine million``,
    ``ein hundert eine millionen``.
    """
    millions, thousands, rest = _groups(n)
    words: list[str] = []
    if millions:
        words += [*_german_below_1000(millions, "eine"), "million" if millions == 1 else "millionen"]
    if thousands:
        words += [*_german_below_1000(thousands, "ein"), "tausend"]
    if rest:
        words += _german_below_1000(rest, "eins")
    return " ".join(words)


def _draw(draws: Draws) -> Row:
    # Long numbers carry the difficulty; one in eight is of any length, so that short ones are learnt as well.
    limit = 10 ** (1 + draws.below(9)) if draws.below(8) == 0 else 10**9
    n = 1 + draws.below(limit - 1)
    return Row(f"{english(n)} =", german(n))


def rows(split: Split, size: int, seed: int) -> list[Row]:
    """``size`` distinct numbers of ``split``; a number belongs to one split whatever size and seed."""
    return distinct_rows(_draw, split, size, seed)


def score(row: Row, response_text: str) -> bool:
    """Exact match, word for word."""
    return response_text.split() == (row.response or "").split()

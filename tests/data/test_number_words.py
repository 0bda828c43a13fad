from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.data import number_words
from skd.data.number_words import english, german
from skd.data.rows import Row, split_of

BY_HAND = [
    (1, "one", "eins"),
    (7, "seven", "sieben"),
    (10, "ten", "zehn"),
    (11, "eleven", "elf"),
    (12, "twelve", "zwölf"),
    (13, "thirteen", "drei zehn"),
    (16, "sixteen", "sech zehn"),
    (17, "seventeen", "sieb zehn"),
    (20, "twenty", "zwanzig"),
    (21, "twenty one", "ein und zwanzig"),
    (30, "thirty", "dreißig"),
    (66, "sixty six", "sechs und sechzig"),
    (77, "seventy seven", "sieben und siebzig"),
    (100, "one hundred", "ein hundert"),
    (101, "one hundred one", "ein hundert eins"),
    (421, "four hundred twenty one", "vier hundert ein und zwanzig"),
    (1000, "one thousand", "ein tausend"),
    (1001, "one thousand one", "ein tausend eins"),
    (21_000, "twenty one thousand", "ein und zwanzig tausend"),
    (101_000, "one hundred one thousand", "ein hundert ein tausend"),
    (112_016, "one hundred twelve thousand sixteen", "ein hundert zwölf tausend sech zehn"),
    (1_000_000, "one million", "eine million"),
    (1_000_001, "one million one", "eine million eins"),
    (2_000_000, "two million", "zwei millionen"),
    (21_000_000, "twenty one million", "ein und zwanzig millionen"),
    (101_000_000, "one hundred one million", "ein hundert eine millionen"),
    (
        999_999_999,
        "nine hundred ninety nine million nine hundred ninety nine thousand nine hundred ninety nine",
        "neun hundert neun und neunzig millionen neun hundert neun und neunzig tausend neun hundert neun und neunzig",
    ),
]


@pytest.mark.parametrize(("n", "in_english", "in_german"), BY_HAND)
def test_hand_checked_numbers(n: int, in_english: str, in_german: str) -> None:
    assert english(n) == in_english
    assert german(n) == in_german


@pytest.mark.parametrize("n", [0, -1, 10**9])
def test_numbers_out_of_range_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=r"is not in 1 \.\. 999999999"):
        english(n)
    with pytest.raises(ValueError, match=r"is not in 1 \.\. 999999999"):
        german(n)


@given(st.integers(1, 999), st.integers(1, 999), st.integers(1, 999))
def test_a_number_is_its_groups_one_after_the_other(millions: int, thousands: int, rest: int) -> None:
    n = millions * 10**6 + thousands * 1000 + rest
    assert german(n) == f"{german(millions * 10**6)} {german(thousands * 1000)} {german(rest)}"
    assert english(n) == f"{english(millions)} million {english(thousands)} thousand {english(rest)}"


def test_no_two_numbers_share_a_spelling() -> None:
    assert len({german(n) for n in range(1, 20_000)}) == 19_999
    assert len({english(n) for n in range(1, 20_000)}) == 19_999


def test_rows_cover_short_and_long_numbers_with_known_words_only() -> None:
    rows = number_words.rows("train", 2000, 0)
    words = {word for row in rows for word in f"{row.prompt} {row.response}".split()}
    assert words <= set(number_words.WORDS)
    assert len(set(number_words.WORDS)) == len(number_words.WORDS)
    lengths = {len(str(row.response).split()) for row in rows}
    assert min(lengths) <= 2
    assert max(lengths) == 17
    assert all(split_of(row.prompt) == "train" for row in rows)


def test_score_is_exact_match_up_to_white_space() -> None:
    row = Row("twenty one =", "ein und zwanzig")
    assert number_words.score(row, " ein und  zwanzig\n")
    assert not number_words.score(row, "ein und zwanzig eins")
    assert not number_words.score(row, "zwanzig und ein")
    assert not number_words.score(row, "")

from __future__ import annotations

import re

import pytest

from skd.data import sums
from skd.data.rows import Row

REFERENCE = "7 + 5 = 1 2 ; 1 + 8 + 6 = 1 5 ; 1 + 3 + 4 = 8 # 8 5 2"


def _numbers(text: str) -> list[int]:
    return [int(digits.replace(" ", "")) for digits in re.split(r"[+=]", text) if digits.strip()]


def test_the_carry_is_spoken_where_there_is_one() -> None:
    assert sums.worked(387, 465) == REFERENCE
    assert sums.worked(111, 222) == "1 + 2 = 3 ; 1 + 2 = 3 ; 1 + 2 = 3 # 3 3 3"


def test_each_step_and_the_sum_are_right() -> None:
    for row in sums.rows("train", 300, 0):
        steps, _, answer = (row.response or "").partition("#")
        for step in steps.split(";"):
            *terms, total = _numbers(step)
            assert sum(terms) == total
        assert sum(_numbers(row.prompt)) == int(answer.replace(" ", ""))


@pytest.mark.parametrize("pair", [(99, 100), (100, 1000), (-100, 200)])
def test_other_lengths_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"not both in 100 \.\. 999"):
        sums.worked(*pair)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (REFERENCE, True),
        ("whatever # 8 5 2", True),
        ("# 8 5 3 # 8 5 2", True),
        ("8 5 2", False),
        ("# 8 5 2 1", False),
        ("# 8 5", False),
        ("# 8 5 2 ;", False),
        ("", False),
    ],
)
def test_the_digits_after_the_last_mark_count(text: str, right: bool) -> None:
    assert sums.score(Row("3 8 7 + 4 6 5 =", REFERENCE), text) is right

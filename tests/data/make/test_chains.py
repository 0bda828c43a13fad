"""Equations of worked solutions: what holds, what does not, what cannot be read."""

from fractions import Fraction

import pytest

from skd.data.make.chains import follows, value_of


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("10 - 4 - 3", 3),
        ("12 / 4 / 3", 1),
        ("-2 - -5", 3),
        ("1/2 * 3", Fraction(3, 2)),
        ("20% * 50", 10),
        ("35 × 3", 105),
        ("$1,200 ÷ 4", 300),
        ("7 x 2", 14),
        (".5 * 4", 2),
    ],
)
def test_values_are_exact(expression: str, value: Fraction) -> None:
    assert value_of(expression) == value


@pytest.mark.parametrize("expression", ["", "2 +", "(2", "2)", "1 / 0", "2 3", "a + 1", "2 ** 3", "__import__"])
def test_what_is_no_expression_has_no_value(expression: str) -> None:
    assert value_of(expression) is None


@pytest.mark.parametrize(
    ("chain", "answer"),
    [
        ("She has 3 * 4 = 12 cats.\n#### 12", "12"),
        ("220.0 meters / 2.0 meters per plant = 110 plants", "110"),
        ("135 clam / 15 clam/minute = 9 minutes", "9"),
        ("There are 50 girls x 2 boys/girl = 100 boys", "100"),
        ("- $400,000 x 8/100 = $32,000", "32000"),
        ("100% - 20% = 80%", "80"),
        ("10 / 4 = 2.5, and 2.5 * 2 = 5", "5"),
        ("1 / 3 = 0.33 and 2 + 2 = 4", "4"),
        ("168 - 3 = 165.0", "165"),
        ("2 * 3 = 6 = 6", "6"),
        ("-3579 - 9376 = -12955", "-12955"),
    ],
)
def test_what_holds_is_kept(chain: str, answer: str) -> None:
    assert follows(chain, answer)


@pytest.mark.parametrize(
    ("chain", "answer"),
    [
        ("She has 3 * 4 = 13 cats.\n#### 13", "13"),  # wrong
        ("30 / 20 = 1 pans", "1"),  # rounded, and not said
        ("0.88 * 40 = 35 students", "35"),
        ("James receives 48=48 emails; 160 - 48 = 112", "112"),  # says nothing
        ("3 * 4 = 12 cats", "13"),  # another answer
        ("There are twelve.", "12"),  # nothing to check
        ("70 + T = 156, so T = 156 - 70 = 86", "86"),  # cannot be read
        ("2 * 3 = six and 1 + 1 = 2", "2"),
        ("#### 12", "12"),
    ],
)
def test_what_does_not_hold_is_left_out(chain: str, answer: str) -> None:
    assert not follows(chain, answer)

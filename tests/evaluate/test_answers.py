"""Where the answer of a response is found, and that no text makes the search slow."""

from fractions import Fraction

import pytest

from skd.evaluate.answers import exact_number, last_boxed, last_number, number_after_marks, stated_answer

BOXES = [
    (r"\boxed{5}", "5"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{1} then \boxed{2}", "2"),
    (r"\boxed{1} then \boxed{2", "1"),
    (r"\boxed{\boxed{3}}", "3"),
    (r"{ \boxed{4} ", "4"),
    (r"} \boxed{4}}", "4"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed {6}", "6"),
    (r"\fbox{7}", "7"),
    (r"\boxed{8} \fbox{7}", "8"),
    (r"\boxed{}", ""),
    (r"\boxed{5", None),
    ("boxed{5}", None),
    (r"\\boxed{5}", None),
    ("no box", None),
]


@pytest.mark.parametrize(("text", "answer"), BOXES)
def test_last_balanced_box(text, answer):
    assert last_boxed(text) == answer


def test_boxes_without_end_are_searched_once():
    assert last_boxed("\\boxed{" * 200_000) is None
    assert last_boxed("\\boxed{" * 50_000 + "1" + "}" * 50_000) == "1"


NUMBERS = [
    ("so 3 + 4 = 7\n#### 7", "7"),
    ("#### 1,234.50 in all", "1,234.50"),
    ("#### $18", "$18"),
    ("#### -3", "-3"),
    ("#### 3/4", "3/4"),
    ("#### The answer is 5", "5"),
    ("####\n5", None),
    ("#### 7\n\nQ: more\n#### 8", "7"),
    ("#### none\n#### 8", "8"),
    ("#### ٥", None),
    ("#### 7^{7^7}", None),
    ("no marks 5", None),
]


@pytest.mark.parametrize(("text", "answer"), NUMBERS)
def test_number_after_marks(text, answer):
    assert number_after_marks(text) == answer


def test_last_number_and_signs():
    assert last_number("first 3, then 10-4 and 1,200.") == "1,200"
    assert last_number("10-4") == "4"
    assert last_number("it is -4") == "-4"
    assert last_number("words") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234.5", Fraction(2469, 2)), ("-3/4", Fraction(-3, 4)), ("$5", 5), (" .5 ", Fraction(1, 2)), ("−2", -2)],
)
def test_exact_numbers(text, value):
    assert exact_number(text) == value


@pytest.mark.parametrize("text", ["", "1,23", "1/0", "5 apples", "٥", "9" * 300, "1e3"])
def test_what_is_no_exact_number(text):
    assert exact_number(text) is None


def test_stated_answers():
    assert stated_answer(r"#### 4 and \boxed{5}") == "5"
    assert stated_answer(r"\boxed{5") is None
    assert stated_answer("1 + 1 #### 2") == "2"
    assert stated_answer("####") is None
    assert stated_answer("The answer is 3.\nThe answer is 4.") == "4."
    assert stated_answer("x + 1") == "x + 1"

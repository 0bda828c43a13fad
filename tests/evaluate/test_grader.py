"""Verdicts on answers: a table of labelled pairs, near misses, and texts that attack."""

import json
import sys
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from benchmarks.grader import hostile_answers
from skd.evaluate.answers import stated_answer
from skd.evaluate.grader import MAX_CHARACTERS, Grader
from skd.evaluate.worker import MathVerify

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "labelled_pairs.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def grader():
    with MathVerify() as worker:
        yield Grader(worker)


def test_every_labelled_pair_is_judged_right(grader):
    assert len(PAIRS) >= 300
    wrong = []
    for pair in PAIRS:
        verdict = grader.grade(stated_answer(pair["answer"]), stated_answer(pair["reference"]) or "")
        if verdict.name != pair["verdict"]:
            wrong.append((pair, verdict))
    assert not wrong


def test_an_answer_equals_itself(grader):
    for pair in PAIRS:
        reference = stated_answer(pair["reference"]) or ""
        assert grader.grade(reference, reference).name == "equal", reference


def _spellings(value, draws):
    """Ways to write a fraction."""
    above, below = value.numerator, value.denominator
    factor = draws.randrange(2, 9)
    spellings = [rf"\frac{{{above}}}{{{below}}}", f"{above}/{below}", f"{above * factor}/{below * factor}"]
    if below == 1:
        spellings += [f"{above:,}", f"{above}.0", f"\\${above}", rf"{above}\text{{ cm}}"]
    return spellings


def test_generated_near_misses_are_never_equal():
    draws, grader = Random(0), Grader()
    for _ in range(500):
        value = Fraction(draws.randrange(1, 2000), draws.choice([1, 1, 1, 2, 3, 7, 8, 25]))
        step = draws.choice([1, -1, Fraction(1, 1000), 99 * value, -value * Fraction(99, 100), -2 * value])
        answer, reference = draws.choice(_spellings(value + step, draws)), draws.choice(_spellings(value, draws))
        assert grader.grade(answer, reference).name == "different", (answer, reference)
        other = draws.choice(_spellings(value, draws))
        assert grader.grade(other, reference).name == "equal", (other, reference)


def test_hostile_answers_run_nothing_and_end_nothing(tmp_path):
    canary, events = tmp_path / "canary", []
    answers = hostile_answers(150, canary, seed=1)
    with MathVerify(limit_seconds=0.2) as worker:
        grader, watching = Grader(worker), [True]

        def watch(event, arguments):
            if watching and event in ("exec", "compile", "subprocess.Popen", "os.system", "socket.connect"):
                events.append((event, arguments))

        sys.addaudithook(watch)
        names = {grader.grade(stated_answer(answer), "7").name for answer in answers}
        watching.clear()
        assert grader.grade(r"\sin(0)", "0").name == "equal"
    assert "equal" not in names
    assert "timeout" in names
    assert not events
    assert not list(tmp_path.iterdir())


def test_long_answers_are_never_parsed(grader):
    digits = "9" * (MAX_CHARACTERS + 1)
    assert grader.grade(digits, digits).name == "equal"
    assert (grader.grade(digits, "7").name, grader.grade(digits, "7").tier) == ("different", "length")


def test_without_math_verify_the_other_tiers_work():
    grader = Grader()
    assert grader.grade("0.5", r"\frac12").name == "equal"
    assert grader.grade(r"\sin(x)", r"\cos(x)").tier == "undecided"


def test_a_unit_that_differs_is_told_apart_by_math_verify_too(grader):
    assert grader.grade(r"\log_2(8)\text{ cm}", r"3\text{ m}").name == "different"
    assert grader.grade(r"\log_2(8)\text{ cm}", r"3\text{ cm}").name == "equal"

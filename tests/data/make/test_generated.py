"""Tasks drawn from reasoning-gym: arithmetic and mathematics."""

import re
import sys
from fractions import Fraction
from itertools import islice

import pytest

from skd.data.make import mathematics, word_problems
from skd.data.make.chains import follows, value_of
from skd.errors import ConfigError
from skd.evaluate.answers import exact_number, last_boxed, number_after_marks

NUM = 150


def test_answers_hold_and_end_in_their_number() -> None:
    for item in islice(word_problems.problems(seed=0), NUM):
        chain, _, number = item.fields["answer"].rpartition("\n#### ")
        assert follows(chain, number)
        assert exact_number(number_after_marks(item.fields["answer"]) or "") == exact_number(number)
        assert "\n\n" not in item.fields["answer"]  # the task stops there
        assert "final answer" not in item.fields["question"]
        assert item.group == f"gsm_symbolic {item.detail.removeprefix('template ')}"


def test_the_seed_decides() -> None:
    first, again, other = ([item.row for item in islice(word_problems.problems(seed), 40)] for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_without_reasoning_gym_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=r"pip install 'skd\[data\]'"):
        next(word_problems.problems(seed=0))


def test_solutions_agree_with_the_answers_of_reasoning_gym() -> None:
    import reasoning_gym

    for name, worked in mathematics.WORKED.items():
        entries = list(reasoning_gym.create_dataset(name, size=60, seed=5))
        solved = [(solution, entry) for entry in entries if (solution := worked(entry["metadata"]))]
        assert len(solved) >= 10, name
        for solution, entry in solved:
            boxed = last_boxed(solution)
            assert boxed is not None
            assert _value(boxed) == _value(entry["answer"]), name


def _value(text: str) -> Fraction:
    value = value_of(re.sub(r"\\d?frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text.strip("$")))
    assert value is not None
    return value


def test_every_step_of_a_solution_holds() -> None:
    for item in islice(mathematics.problems(seed=0), NUM):
        steps = [line for line in item.fields["solution"].splitlines() if re.fullmatch(r"[-\d+*/() ]+ = -?\d+", line)]
        assert all(follows(step, step.rpartition("= ")[2]) for step in steps), item.fields["solution"]
        assert last_boxed(item.fields["solution"])


def test_all_kinds_of_problems_come_in_turn() -> None:
    kinds = {item.source.name for item in islice(mathematics.problems(seed=0), 7)}
    assert len(kinds) == 7

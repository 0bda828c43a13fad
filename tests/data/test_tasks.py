from __future__ import annotations

import pytest

from skd.data.rows import Draws, split_of
from skd.data.tasks import TASKS, Task
from skd.errors import DataError

tasks = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


@tasks
def test_rows_are_distinct_and_a_function_of_the_seed(task: Task) -> None:
    rows = task.rows("train", 300, 3)
    assert len({row.prompt for row in rows}) == 300
    assert task.rows("train", 300, 3) == rows
    assert task.rows("train", 100, 3) == rows[:100]
    assert task.rows("train", 300, 4) != rows


@tasks
def test_splits_never_overlap_whatever_the_seeds(task: Task) -> None:
    train = {row.prompt for seed in range(3) for row in task.rows("train", 500, seed)}
    validation = {row.prompt for seed in range(3) for row in task.rows("validation", 200, seed)}
    test = {row.prompt for seed in range(3) for row in task.rows("test", 200, seed)}
    assert not train & validation
    assert not train & test
    assert not validation & test


@tasks
def test_every_reference_scores_and_words_are_known(task: Task) -> None:
    for row in task.rows("test", 200, 0):
        assert row.response is not None
        assert task.score(row, row.response)
        assert not task.score(row, row.response.rsplit(" ", 2)[0] + " und")
        assert set(f"{row.prompt} {row.response}".split()) <= set(task.words)


@tasks
@pytest.mark.parametrize("size", [0, -1, 1_000_001])
def test_impossible_sizes_are_refused(task: Task, size: int) -> None:
    with pytest.raises(DataError, match=rf"error\[SKD-D17\] size: size is {size}, but a task gives 1 to 1000000 rows"):
        task.rows("train", size, 0)


def test_splits_have_their_shares() -> None:
    splits = [split_of(str(n)) for n in range(10_000)]
    assert abs(splits.count("train") - 8000) < 200
    assert abs(splits.count("validation") - 1000) < 150
    assert abs(splits.count("test") - 1000) < 150


def test_draws_are_pinned_and_within_range() -> None:
    # Raw words of Philox4x64 are stable across platforms and NumPy versions: a change here changes every data set.
    assert [Draws(7).below(1000) for _ in range(2)] == [266, 266]
    draws = Draws(7)
    assert {draws.below(5) for _ in range(200)} == {0, 1, 2, 3, 4}
    assert sorted(draws.sample("abcd", 4)) == list("abcd")
    assert draws.pick(["only"]) == "only"
    assert not any(draws.chance(0) for _ in range(50))
    assert all(draws.chance(100) for _ in range(50))

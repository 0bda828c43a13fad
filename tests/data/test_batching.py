from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.data.batching import micro_batches


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 200))
def test_groups_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[i] for i in group)
        assert padded <= budget or len(group) == 1
    assert micro_batches(lengths, budget) == groups


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 200))
def test_no_group_could_take_the_next_row(lengths: list[int], budget: int) -> None:
    for group in micro_batches(lengths, budget)[:-1]:
        assert (len(group) + 1) * max(lengths[i] for i in group) > budget


def test_similar_lengths_share_a_group() -> None:
    assert micro_batches([2, 9, 2, 10, 3], token_budget=20) == [[3, 1], [4, 0, 2]]


def test_a_row_over_the_budget_stands_alone() -> None:
    assert micro_batches([3, 100, 3], token_budget=8) == [[1], [0, 2]]


def test_padding_is_small_on_varied_lengths() -> None:
    lengths = [10 + (37 * i) % 191 for i in range(400)]
    groups = micro_batches(lengths, token_budget=2048)
    padded = sum(len(group) * max(lengths[i] for i in group) for group in groups)
    assert padded < 1.06 * sum(lengths)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="token_budget is 0; it must be at least 1"):
        micro_batches([1], 0)

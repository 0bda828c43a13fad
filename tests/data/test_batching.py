from __future__ import annotations

import math
from itertools import pairwise, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.data.batching import _START, micro_batches


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 200))
def test_groups_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget, "cpu")
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[i] for i in group)
        assert padded <= budget or len(group) == 1
    assert micro_batches(lengths, budget, "cpu") == groups


@given(st.lists(st.integers(0, 400), min_size=1, max_size=9), st.integers(50, 900))
def test_no_other_cut_is_cheaper(lengths: list[int], budget: int) -> None:
    rows = sorted(lengths, reverse=True)
    costs = []
    for cuts in product((False, True), repeat=len(rows) - 1):
        borders = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(rows)]
        groups = [rows[first:end] for first, end in pairwise(borders)]
        if all(len(group) == 1 or len(group) * group[0] <= budget for group in groups):
            costs.append(sum(len(group) * group[0] + _START["cpu"] for group in groups))
    found = micro_batches(lengths, budget, "cpu")
    assert sum(len(group) * lengths[group[0]] + _START["cpu"] for group in found) == min(costs)


def test_similar_lengths_share_a_group() -> None:
    assert micro_batches([2, 9, 2, 10, 3], 20, "cpu") == [[3, 1], [4, 0, 2]]
    assert micro_batches([200, 900, 210, 1000, 300], 8192, "cpu") == [[3, 1], [4], [2, 0]]
    assert micro_batches([200, 900, 210, 1000, 300], 8192, "cuda") == [[3, 1], [4, 2, 0]]
    assert micro_batches([700, 900, 710, 1000, 800], 8192, "cuda") == [[3, 1, 4, 2, 0]]


def test_a_row_over_the_budget_stands_alone() -> None:
    assert micro_batches([3, 100, 3], 8, "cpu") == [[1], [0, 2]]


@pytest.mark.parametrize("rows", [8, 64, 256])
def test_padding_is_below_a_tenth_on_responses_of_log_normal_lengths(rows: int) -> None:
    random = Random(rows)
    lengths = [random.randint(56, 66) + min(1024, int(random.lognormvariate(math.log(256), 0.6))) for _ in range(rows)]
    groups = micro_batches(lengths, 8192, "cpu")
    padded = sum(len(group) * max(lengths[i] for i in group) for group in groups)
    assert padded < sum(lengths) / 0.9
    assert len(groups) < rows


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="token_budget is 0; it must be at least 1"):
        micro_batches([1], 0, "cpu")

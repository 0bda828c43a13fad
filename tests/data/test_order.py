from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.data.order import batch_at, order

seeds = st.integers(0, 2**64 - 1)


@given(seeds, st.integers(0, 1000), st.integers(0, 200))
def test_order_is_a_permutation_and_pure(seed: int, epoch: int, n: int) -> None:
    assert sorted(order(seed, epoch, n)) == list(range(n))
    assert order(seed, epoch, n) == order(seed, epoch, n)


def test_order_differs_by_seed_and_epoch_and_is_pinned() -> None:
    assert order(0, 0, 50) != order(0, 1, 50)
    assert order(0, 0, 50) != order(1, 0, 50)
    # Changing these numbers changes the order of every run that is resumed.
    assert order(0, 0, 8) == [0, 2, 1, 5, 4, 3, 6, 7]
    assert order(42, 3, 8) == [1, 6, 3, 4, 5, 2, 0, 7]


def test_every_row_comes_first_about_equally_often() -> None:
    firsts = [order(seed, 0, 4)[0] for seed in range(2000)]
    assert all(abs(firsts.count(row) - 500) < 100 for row in range(4))


@given(seeds, st.integers(1, 30), st.lists(st.integers(0, 17), max_size=12))
def test_no_row_is_missed_or_repeated_within_an_epoch(seed: int, n: int, batch_sizes: list[int]) -> None:
    seen: list[tuple[int, int]] = []
    for batch_size in batch_sizes:
        seen += batch_at(len(seen), batch_size, n, seed)
    epochs = [[row for epoch, row in seen if epoch == e] for e in range(len(seen) // n + 1)]
    assert [epoch for epoch, _ in seen] == sorted(epoch for epoch, _ in seen)
    for epoch, rows in enumerate(epochs):
        assert rows == order(seed, epoch, n)[: len(rows)]
    assert all(len(rows) == n for rows in epochs[:-1])


@given(seeds, st.integers(0, 500), st.integers(1, 30), st.integers(0, 64), st.integers(1, 8))
def test_a_batch_is_the_same_however_it_is_split(seed: int, position: int, n: int, size: int, ranks: int) -> None:
    whole = batch_at(position, size, n, seed)
    shares = [size // ranks + (rank < size % ranks) for rank in range(ranks)]
    starts = [position + sum(shares[:rank]) for rank in range(ranks)]
    parts = [batch_at(start, share, n, seed) for start, share in zip(starts, shares, strict=True)]
    assert [pair for part in parts for pair in part] == whole


@pytest.mark.parametrize(("position", "batch_size", "n"), [(-1, 1, 1), (0, -1, 1), (0, 1, 0)])
def test_impossible_batches_are_refused(position: int, batch_size: int, n: int) -> None:
    with pytest.raises(ValueError, match="must be >= 0, >= 0 and >= 1"):
        batch_at(position, batch_size, n, 0)

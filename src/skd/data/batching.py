"""Micro-batches that fit a token budget and are little padding."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["micro_batches"]

_START = {"cpu": 128, "cuda": 1024}
"""Padded tokens that take as long as one more forward and backward takes to start. On a GPU it is a guess."""


def micro_batches(lengths: Sequence[int], token_budget: int, device: str) -> list[list[int]]:
    """Groups of indices into ``lengths`` with rows x longest row <= ``token_budget``; longest group first.

    Of all ways to cut the rows, in order of their length, it is the one with the fewest padded tokens, where each group
    counts as some more; among equal lengths the lower index comes first. A row longer than the budget gets a group of
    its own. ``device`` is a type, such as "cpu". Raises ValueError for a budget below 1.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget is {token_budget}; it must be at least 1")
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = _START.get(device, _START["cuda"])
    # Of the first n rows: the least cost, and where the last group of the cheapest cut begins.
    cheapest = [(0, 0)] + [(-1, 0)] * len(order)
    for first, row in enumerate(order):
        most = max(1, token_budget // max(lengths[row], 1))
        for end in range(first + 1, min(first + most, len(order)) + 1):
            cost = cheapest[first][0] + (end - first) * lengths[row] + start
            if not 0 <= cheapest[end][0] <= cost:
                cheapest[end] = cost, first
    groups, end = list[list[int]](), len(order)
    while end:
        first = cheapest[end][1]
        groups.append(order[first:end])
        end = first
    return groups[::-1]

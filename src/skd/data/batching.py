"""Micro-batches that fit a token budget."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["micro_batches"]


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Groups of indices into ``lengths`` with rows x longest row <= ``token_budget``; longest group first.

    Rows are grouped in order of length, so that little is padding; among equal lengths the lower index comes first. A
    row longer than the budget gets a group of its own. Raises ValueError for a budget below 1.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget is {token_budget}; it must be at least 1")
    groups: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * longest <= token_budget:
            groups[-1].append(i)
        else:
            groups.append([i])
            longest = lengths[i]
    return groups

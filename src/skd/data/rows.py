"""One row of a data set, and how the built-in tasks draw theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from skd.errors import DataError, Problem

__all__ = ["MAX_TASK_ROWS", "Draws", "Role", "Row", "Split", "Turn", "distinct_rows", "split_of"]

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
T = TypeVar("T")

MAX_TASK_ROWS = 1_000_000
"""Rows that one call may draw from a task."""

_TASK_STREAM = 0x7461736B
"""Second key word, so that a run which orders and draws by the same seed does not use the same numbers twice."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Row:
    """A prompt and, where the data has one, its reference response; both as text."""

    prompt: str
    """Of a conversation, its last user turn."""
    response: str | None
    """Of a conversation, its last assistant turn."""
    context: tuple[Turn, ...] = ()
    """The turns before the prompt: at most one system message, then user and assistant in turn."""
    route: str | None = None
    """Which of several teachers it has; None where there are none."""


class Draws:
    """Seeded draws that are the same on every platform and in every version of NumPy.

    Only raw 64-bit words of Philox are used: NumPy keeps those stable, its higher-level methods it may change.
    """

    def __init__(self, seed: int) -> None:
        """``seed``: 0 <= seed < 2**64."""
        self._words = np.random.Philox(key=np.array([seed, _TASK_STREAM], dtype=np.uint64))

    def below(self, n: int) -> int:
        """An integer in [0, n); the bias of the remainder is below n / 2**64."""
        return int(self._words.random_raw()) % n

    def chance(self, percent: int) -> bool:
        """True in ``percent`` of 100 draws."""
        return self.below(100) < percent

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` different members of ``items``, in drawn order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]


def split_of(prompt: str) -> Split:
    """The split a prompt belongs to, whatever size or seed is asked for: 80 % train, 10 % validation, 10 % test."""
    share = int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=8).digest(), "big") % 10
    return "test" if share == 0 else "validation" if share == 1 else "train"


def distinct_rows(draw: Callable[[Draws], Row], split: Split, size: int, seed: int) -> list[Row]:
    """``size`` rows of ``split`` with distinct prompts, drawn by ``draw``; a smaller size is a prefix of a larger one.

    Raises DataError for a size outside 1 .. MAX_TASK_ROWS.
    """
    if not 1 <= size <= MAX_TASK_ROWS:
        found = f"size is {size}, but a task gives 1 to {MAX_TASK_ROWS} rows"
        raise DataError(Problem("SKD-D17", "size", found, "choose a size in that range"))
    draws, rows = Draws(seed), dict[str, Row]()
    while len(rows) < size:
        row = draw(draws)
        if split_of(row.prompt) == split:
            rows.setdefault(row.prompt, row)
    return list(rows.values())

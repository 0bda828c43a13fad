"""The built-in tasks by name: seeded rows with disjoint splits, and an exact score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from skd.data import dialogue, number_words, sums, toy_translation
from skd.data.rows import Row, Split

__all__ = ["TASKS", "Task"]


class _Rows(Protocol):
    def __call__(self, split: Split, size: int, seed: int) -> list[Row]: ...


class _Score(Protocol):
    def __call__(self, row: Row, response_text: str) -> bool: ...


@dataclass(frozen=True)
class Task:
    """A task that needs no files: its rows have distinct prompts, and no prompt is in two splits."""

    name: str
    words: tuple[str, ...]
    """Every word of prompts and responses; words are separated by single spaces."""
    rows: _Rows
    """(split, size, seed) -> rows; a smaller size is a prefix of a larger one."""
    score: _Score
    """(row, response text) -> whether the response is entirely right."""


TASKS = {
    "number_words": Task("number_words", number_words.WORDS, number_words.rows, number_words.score),
    "dialogue": Task("dialogue", dialogue.WORDS, dialogue.rows, dialogue.score),
    "toy_translation": Task("toy_translation", toy_translation.WORDS, toy_translation.rows, toy_translation.score),
    "sums": Task("sums", sums.WORDS, sums.rows, sums.score),
}
"""The tasks that ``kind: task`` in a data source can name."""

"""The token view: who wrote each token, what both models held probable there, and how far apart they were.

Input, as training writes it (``tokens/step-N.json``)::

    {"step": int, "responses": [{"prompt": str, "pieces": [str], "authors": [0|1|2], "divergence": [float],
      "teacher_top": [[[piece, probability] x 5]], "student_top": [[[piece, probability] x 5]]}]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skd.text import shortened, visible

__all__ = ["Budget", "ResponseView", "TokenView", "token_view"]

MAX_RESPONSES = 24
MAX_TOKENS = 400
_PIECE, _PROMPT = 60, 2_000
_LEVELS = (0.01, 0.1, 0.5, 1.0, 2.0)
_AUTHORS = ("data", "student", "teacher")
_ORDER: tuple[str, ...] = ("student", "teacher", "data")


@dataclass
class Budget:
    """Tokens that a page may still show in detail: about 250 bytes each."""

    tokens: int = 12_000


@dataclass(frozen=True)
class ResponseView:
    """One response, ready to be rendered."""

    prompt: str
    tokens: list[tuple[str, str, str]]
    """(leading space, text, CSS classes) of each token shown. The space stands outside, so that lines break cleanly."""
    counts: list[tuple[str, int]]
    """(author, tokens) over the whole response, authors without tokens left out."""
    left_out: int
    details: list[Any]
    """Per token shown: [author, divergence or None, teacher's top, student's top, piece], for the page's script."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole response."""
        return sum(count for _, count in self.counts)


@dataclass(frozen=True)
class TokenView:
    """The responses of one step."""

    step: int
    responses: list[ResponseView] = field(default_factory=list)
    left_out: int = 0
    """Responses not shown."""

    @property
    def authors(self) -> list[str]:
        """Names of the authors that occur, in a fixed order."""
        present = {author for response in self.responses for author, _ in response.counts}
        return [author for author in _ORDER if author in present]


def token_view(data: Mapping[str, Any], budget: Budget) -> TokenView:
    """The view of one step, within ``budget``, from which it takes what it shows.

    Raises ValueError, saying what is wrong, when ``data`` does not have the documented form.
    """
    try:
        step, rows = int(data["step"]), list(data["responses"])
        views: list[ResponseView] = []
        for row in rows[:MAX_RESPONSES]:
            limit = min(MAX_TOKENS, budget.tokens)
            if limit == 0:
                break
            views.append(_response(row, limit))
            budget.tokens -= len(views[-1].tokens)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"not a token view: {type(error).__name__} {error}") from error
    return TokenView(step, views, len(rows) - len(views))


def _response(row: Mapping[str, Any], limit: int) -> ResponseView:
    names = ("pieces", "authors", "divergence", "teacher_top", "student_top")
    lengths = {name: len(row[name]) for name in names}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"not a token view: lengths differ, {lengths}")
    pieces, authors = [str(piece) for piece in row["pieces"]], [_AUTHORS[_author(a)] for a in row["authors"]]
    divergence = [_finite(value) for value in row["divergence"][:limit]]
    details = [
        [
            _author(row["authors"][i]),
            value,
            _top(row["teacher_top"][i]),
            _top(row["student_top"][i]),
            _marked(pieces[i]),
        ]
        for i, value in enumerate(divergence)
    ]
    tokens = [(*_set(pieces[i]), f"t {authors[i]} d{_level(value)}") for i, value in enumerate(divergence)]
    counts = [(author, authors.count(author)) for author in _ORDER if author in authors]
    prompt = shortened(str(row["prompt"]), _PROMPT)
    return ResponseView(prompt, tokens, counts, len(pieces) - len(tokens), details)


def _author(value: Any) -> int:
    if value not in (0, 1, 2):
        raise ValueError(f"not a token view: author {str(value)[:20]!r} is none of 0, 1, 2")
    return int(value)


def _top(pairs: Any) -> list[tuple[str, float | None]]:
    return [(_marked(str(piece)), _finite(probability)) for piece, probability in pairs[:5]]


def _set(piece: str) -> tuple[str, str]:
    """A piece as it stands in the text: its leading space, and the rest with line ends and tabs shown."""
    text = shortened(piece, _PIECE)
    rest = text.removeprefix(" ")
    if not rest.strip(" "):
        return "", _marked(piece)
    return text[: len(text) - len(rest)], rest.replace("\t", "⇥\t").replace("\n", "↵\n")


def _marked(piece: str) -> str:
    """A piece on its own, every space at its ends as a mark, on one line."""
    text = visible(shortened(piece, _PIECE)).replace("\t", "⇥").replace("\n", "↵")
    left, right = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return "␣" * left + text[left : len(text) - right] + "␣" * right if text.strip(" ") else "␣" * left or "∅"


def _finite(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return round(number, 5) if math.isfinite(number) else None


def _level(divergence: float | None) -> int:
    return sum(divergence >= bound for bound in _LEVELS) if divergence is not None else 0

"""Responses token by token: who wrote each, what both models held probable there, and how far apart they were.

Input, as training writes it (``tokens/step-N.json``)::

    {"step": int, "responses": [{"prompt": str, "pieces": [str], "authors": [0|1|2], "divergence": [float],
      "teacher_top": [[[piece, probability] x 5]], "student_top": [[[piece, probability] x 5]]}]}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skd.text import shortened, visible

__all__ = ["ORDER", "Budget", "ResponseView", "Snapshot", "snapshot", "tally"]

MAX_TOKENS = 400
_PIECE, _PROMPT = 60, 2_000
_LEVELS = (0.01, 0.1, 0.5, 1.0, 2.0)
_AUTHORS = ("data", "student", "teacher")
ORDER: tuple[str, ...] = ("student", "teacher", "data")


@dataclass
class Budget:
    """What a page may still show in detail: responses, and tokens of about 150 bytes each."""

    responses: int = 200
    tokens: int = 22_000
    pieces: dict[str, int] = field(default_factory=dict)
    """Number of each text in the details' table, which holds every text once."""

    def part(self, share: float) -> Budget:
        """A new one for a share of what this one has left."""
        return Budget(round(share * self.responses), round(share * self.tokens))

    def share(self) -> int:
        """Tokens that the next response may take, so that all that follow get as many; then it counts as shown."""
        limit = min(MAX_TOKENS, self.tokens // max(self.responses, 1))
        self.responses -= 1
        return limit

    def piece(self, text: str) -> int:
        """The number of a text as it stands on its own."""
        return self.pieces.setdefault(_marked(text), len(self.pieces))


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
    """Per token shown: [author, divergence or None, teacher's top, student's top, piece], for the page's script. A top
    is a flat list of piece and probability in ten thousandths, pieces by number."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole response."""
        return sum(count for _, count in self.counts)


@dataclass(frozen=True)
class Snapshot:
    """The responses of one step."""

    step: int
    responses: list[ResponseView]
    """Those shown."""
    counts: Mapping[str, int]
    """Tokens by author over all responses, shown or not."""
    divergence: float | None
    """Mean over all tokens, in nats; None where it was not recorded."""
    num_responses: int


def snapshot(data: Mapping[str, Any], budget: Budget, most: int) -> Snapshot:
    """The first ``most`` responses of one step within ``budget``, from which it takes what it shows, and sums over all.

    Raises ValueError, saying what is wrong, when ``data`` does not have the documented form.
    """
    try:
        step, rows = int(data["step"]), list(data["responses"])
        authors = Counter(_AUTHORS[_author(author)] for row in rows for author in row["authors"])
        distances = [value for row in rows for value in map(_finite, row["divergence"]) if value is not None]
        shown = [_response(row, budget) for row in rows[: min(most, budget.responses)]]
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"not a token view: {type(error).__name__} {error}") from error
    mean = math.fsum(distances) / len(distances) if distances else None
    return Snapshot(step, shown, authors, mean, len(rows))


def _response(row: Mapping[str, Any], budget: Budget) -> ResponseView:
    names = ("pieces", "authors", "divergence", "teacher_top", "student_top")
    lengths = {name: len(row[name]) for name in names}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"not a token view: lengths differ, {lengths}")
    pieces, authors = [str(piece) for piece in row["pieces"]], [_author(author) for author in row["authors"]]
    tokens, details = [], []
    for i in range(min(budget.share(), len(pieces))):
        distance = _finite(row["divergence"][i])
        tops = [_top(row[name][i], budget) for name in ("teacher_top", "student_top")]
        details.append([authors[i], distance, *tops, budget.piece(pieces[i])])
        tokens.append((*_set(pieces[i]), f"t {_AUTHORS[authors[i]]} d{_level(distance)}"))
    budget.tokens -= len(tokens)
    left_out = len(pieces) - len(tokens)
    return ResponseView(shortened(str(row["prompt"]), _PROMPT), tokens, tally(authors), left_out, details)


def tally(authors: Sequence[Any]) -> list[tuple[str, int]]:
    """(author, tokens), authors without tokens left out. Raises ValueError for what is no author."""
    names = Counter(_AUTHORS[_author(author)] for author in authors)
    return [(author, names[author]) for author in ORDER if names[author]]


def _author(value: Any) -> int:
    if value not in (0, 1, 2):
        raise ValueError(f"not a token view: author {str(value)[:20]!r} is none of 0, 1, 2")
    return int(value)


def _top(pairs: Sequence[Any], budget: Budget) -> list[int | None]:
    flat: list[int | None] = []
    for piece, probability in pairs[:5]:
        share = _finite(probability)
        flat += [budget.piece(str(piece)), None if share is None else round(10_000 * share)]
    return flat


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
    return round(number, 4) if math.isfinite(number) else None


def _level(divergence: float | None) -> int:
    return sum(divergence >= bound for bound in _LEVELS) if divergence is not None else 0

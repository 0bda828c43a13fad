"""The rows of a set as token ids, taken one after the other: what is kept does not grow with what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from skd.data.frames import Frame, Refusal, TrainOn
from skd.data.rows import Row
from skd.data.spool import Flags, Numbers, TokenLists
from skd.errors import DataError, ModelError, Problem
from skd.types import Prompts

__all__ = ["Encoding", "LongPrompt", "Refusals"]

logger = logging.getLogger(__name__)

LongPrompt = Literal["error", "skip", "truncate_left"]


@dataclass
class _Count:
    """How many rows are of a kind, and the first of them."""

    rows: int = 0
    first: int = -1
    text: str = ""

    def add(self, row: int, text: str = "") -> None:
        if not self.rows:
            self.first, self.text = row, text
        self.rows += 1


@dataclass
class Refusals:
    """Rows that do not fit their frame, counted by kind."""

    rows: int = 0
    """All rows so far."""
    _kinds: dict[tuple[str, str], _Count] = field(default_factory=dict)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Around one row."""
        try:
            yield
        except Refusal as refusal:
            kind = self._kinds.setdefault((refusal.code, refusal.remedy), _Count())
            kind.add(self.rows, refusal.found)
        self.rows += 1

    def require_none(self) -> None:
        """Raises ModelError with all kinds."""
        problems = [
            Problem(
                code,
                "data.chat",
                f"{kind.rows} of {self.rows} rows do not fit, first row {kind.first}: {kind.text}",
                remedy,
            )
            for (code, remedy), kind in self._kinds.items()
        ]
        if problems:
            raise ModelError(problems)


@dataclass
class Encoding:
    """Prompts and references as far as the rows were added; ``finished`` gives them, or says all that is wrong."""

    frame: Frame
    train_on: TrainOn
    limit: int
    """Longest prompt in tokens."""
    policy: LongPrompt
    _prompts: TokenLists = field(default_factory=TokenLists)
    _references: TokenLists = field(default_factory=TokenLists)
    _masks: Flags = field(default_factory=Flags)
    _sample_ids: Numbers = field(default_factory=Numbers)
    _masked: bool = False
    _refusals: Refusals = field(default_factory=Refusals)
    _empty: _Count = field(default_factory=_Count)
    _unanswered: _Count = field(default_factory=_Count)
    _spelt: _Count = field(default_factory=_Count)
    _long: _Count = field(default_factory=_Count)
    _longest: tuple[int, int] = (0, -1)
    """Length and row of the longest prompt."""
    _nothing_left: bool = False

    def add(self, row: Row) -> None:
        """Encode the next row."""
        number = self._refusals.rows
        if row.response is None:
            self._unanswered.add(number)
        if special := self.frame.special_text(row):
            self._spelt.add(number, special)
        with self._refusals.noting():
            encoded = self.frame.encode(row, self.train_on)
            if not encoded.prompt:
                self._empty.add(number)
            prompt = self._fitting(number, row, encoded.prompt)
            if prompt is None:
                return
            reference = encoded.reference or []
            self._prompts.append(prompt)
            self._sample_ids.append(number)
            self._references.append(reference)
            self._masks.append(encoded.mask or [True] * len(reference))
            self._masked |= encoded.mask is not None

    def _fitting(self, number: int, row: Row, prompt: list[int]) -> list[int] | None:
        """The prompt within the limit; None where the row is to be left out."""
        if len(prompt) <= self.limit:
            return prompt
        self._long.add(number)
        if len(prompt) > self._longest[0]:
            self._longest = (len(prompt), number)
        if self.policy != "truncate_left":
            return None
        shortened = self.frame.shortened(row, self.train_on, self.limit)
        self._nothing_left |= not shortened
        return shortened

    def finished(self) -> Prompts:
        """The set. Raises as ``skd.data.chat.encode_prompts``."""
        self._refusals.require_none()
        self._require_whole()
        if self._spelt.rows:
            text = "%d of %d rows spell a special token, such as %s; it is tokenised as ordinary text"
            logger.warning(text, self._spelt.rows, self._refusals.rows, self._spelt.text)
        self._require_short()
        answered = bool(self._refusals.rows) and not self._unanswered.rows
        return Prompts(
            self._prompts,
            self._sample_ids,
            self._references if answered else None,
            self._masks if self._masked else None,
        )

    def _require_whole(self) -> None:
        problems, rows = [], self._refusals.rows
        if self._empty.rows:
            found = f"{self._empty.rows} of {rows} prompts have no tokens, first in row {self._empty.first}"
            problems.append(Problem("SKD-D05", "data", found, "fill or remove these rows"))
        if 0 < self._unanswered.rows < rows:
            found = f"{self._unanswered.rows} of {rows} rows have no response, first row {self._unanswered.first}"
            problems.append(Problem("SKD-D04", "data", found, "give all rows a response or none"))
        if problems:
            raise DataError(problems)

    def _require_short(self) -> None:
        if not self._long.rows:
            return
        length, row = self._longest
        found = (
            f"{self._long.rows} of {self._refusals.rows} prompts are longer than {self.limit} tokens; the longest, "
            f"row {row}, has {length}"
        )
        if self.policy == "error":
            remedy = "raise data.max_prompt_tokens, or set data.on_long_prompt to skip or truncate_left"
            raise DataError(Problem("SKD-D08", "data.max_prompt_tokens", found, remedy))
        logger.warning("%s; data.on_long_prompt: %s", found, self.policy)
        if self._nothing_left or not len(self._prompts):
            nothing = f"{found}; nothing is left of them"
            raise DataError(Problem("SKD-D08", "data.max_prompt_tokens", nothing, "raise the limit"))

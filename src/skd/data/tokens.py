"""Text becomes ids here and nowhere else.

What stands in a row is content: text that spells a special token, such as ``<|im_end|>``, is tokenised as ordinary text
and cannot end a turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skd.data.rows import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Escaped", "Tokens"]

_OPEN, _CLOSE = "\ue000", "\ue001"
"""Private characters around the number of a special token that a row spells, while its template is rendered."""
_ANCHOR = "\n"
"""Put in front of text that stands behind other text, for tokenizers that give the start of a text a space."""


class Tokens:
    """A tokenizer, asked for the ids of two kinds of text: content of rows, and what a template wrote."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self.special_ids = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
        self.specials = sorted((str(tokenizer.convert_ids_to_tokens(i)) for i in self.special_ids), key=len)[::-1]
        """Their texts, longest first."""
        self.special = re.compile("|".join(map(re.escape, self.specials)) or "(?!)")
        """Finds a special token's text."""
        # A tokenizer may also add an end token; what it adds in front is what comes before the first id of the text.
        whole, bare = tokenizer("a")["input_ids"], self.content("a")
        self.before: list[int] = whole[: whole.index(bare[0])]
        """What the tokenizer itself puts in front of a text."""
        self._anchor = self.content(_ANCHOR)
        self._spaces_starts = self.content(f"{_ANCHOR}a") != [*self._anchor, *bare]

    def content(self, text: str, behind: bool = False) -> list[int]:
        """Ids of a row's text; special tokens in it are split. ``behind``: other text stands before it."""
        return self._ids(text, split=True, behind=behind)

    def written(self, text: str, behind: bool = False) -> list[int]:
        """Ids of what a template wrote; its special tokens are such."""
        return self._ids(text, split=False, behind=behind)

    def _ids(self, text: str, split: bool, behind: bool) -> list[int]:
        if behind and self._spaces_starts:
            ids = self._ids(_ANCHOR + text, split, behind=False)
            if ids[: len(self._anchor)] == self._anchor:
                return ids[len(self._anchor) :]
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=split)["input_ids"])


class Escaped:
    """The turns of a row with the special tokens they spell taken out, so that a template may be rendered of them."""

    def __init__(self, tokens: Tokens, turns: Sequence[Turn]) -> None:
        self._tokens = tokens
        texts = [turn.content for turn in turns]
        # Longer than any run in the texts, so that no text can look like a mark.
        run = max((len(match) for text in texts for match in re.findall(f"{_OPEN}+", text)), default=0) + 1
        self._open = _OPEN * run
        self._mark = re.compile(f"{self._open}(\\d+){_CLOSE}")
        self._spelt = any(tokens.special.search(text) for text in texts)
        self.turns = [Turn(turn.role, tokens.special.sub(self._mark_of, turn.content)) for turn in turns]

    def _mark_of(self, match: re.Match[str]) -> str:
        return f"{self._open}{self._tokens.specials.index(match.group())}{_CLOSE}"

    def ids(self, rendered: str, behind: bool = False) -> list[int]:
        """Ids of rendered text: the template's special tokens are such, those that the row spells are text."""
        if not self._spelt:
            return self._tokens.written(rendered, behind)
        ids: list[int] = []
        for i, part in enumerate(self._mark.split(rendered)):
            if i % 2:
                ids += self._tokens.content(self._tokens.specials[int(part)], behind or bool(ids))
            elif part:
                ids += self._tokens.written(part, behind or bool(ids))
        return ids

    def pieces(self, spans: Sequence[str]) -> list[list[int]]:
        """The ids of each span, as they are in the whole text wherever no token lies across a border."""
        pieces: list[list[int]] = []
        start, done, whole = 0, 0, self.ids("".join(spans))
        for i in range(len(spans) - 1):
            head = self.ids("".join(spans[start : i + 1]), behind=start > 0)
            pieces.append(head[done:])
            if whole[: len(head)] == head:
                done = len(head)
            else:
                # Where writing stops here, the model has seen these ids; what follows is tokenised by itself.
                start, done, whole = i + 1, 0, self.ids("".join(spans[i + 1 :]), behind=True)
        return [*pieces, whole[done:]]

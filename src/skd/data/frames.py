"""What stands around the texts of a row: a chat template, or what the tokenizer itself puts in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

from skd.data.rows import Row, Turn
from skd.data.tokens import Escaped, Tokens
from skd.rendering import TemplateRefusal, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatFrame", "Encoded", "Frame", "Refusal", "TrainOn", "turns_of"]

TrainOn = Literal["last", "all"]

_CONTENT = "CONTENT-OF-THE-ROW"
"""Stands for a row's text when a template is rendered to see what it puts around it."""
_THINK = "<think>"


@dataclass(frozen=True)
class Encoded:
    """A row as token ids."""

    prompt: list[int]
    """Empty when the prompt has no tokens."""
    reference: list[int] | None
    """From the first trained turn to the end of the last one; None when the row has no response."""
    mask: list[bool] | None = None
    """Which tokens of the reference are learned from; None when all are."""


class Refusal(Exception):
    """A row that a frame cannot hold."""

    def __init__(self, code: str, found: str, remedy: str) -> None:
        super().__init__(found)
        self.code, self.found, self.remedy = code, found, remedy


class Frame:
    """Plain text: what the tokenizer itself puts in front of a text, then the text.

    With ``keeps_empty``, a prompt without text has the tokens that stand around it; otherwise it has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_id: int, *, keeps_empty: bool = False) -> None:
        self.tokens, self.end_id, self.keeps_empty = Tokens(tokenizer), stop_id, keeps_empty

    def encode(self, row: Row, train_on: TrainOn) -> Encoded:
        """The ids of a row. Raises Refusal where the row has no place in this frame."""
        if row.context:
            found = f"{len(row.context) + 1} turns before the response, and no chat template that could frame them"
            raise Refusal("SKD-M08", found, "use a chat model, or rows of one prompt and one response")
        content = self.tokens.content(row.prompt)
        reference = None if row.response is None else [*self.tokens.content(row.response), self.end_id]
        return Encoded(self.tokens.before + content if content or self.keeps_empty else [], reference)

    def shortened(self, row: Row, train_on: TrainOn, limit: int) -> list[int]:
        """The prompt, its text cut on the left to ``limit`` ids; empty when no text would be left."""
        room = limit - len(self.tokens.before)
        return self.tokens.before + self.tokens.content(row.prompt)[-room:] if room > 0 else []

    def special_text(self, row: Row) -> str | None:
        """A special token that is spelt out in a row."""
        texts = (*(turn.content for turn in row.context), row.prompt, row.response or "")
        found = next((match for text in texts if (match := self.tokens.special.search(text))), None)
        return found.group() if found else None


class ChatFrame(Frame):
    """A chat template: the turns of a row, the system text in front of rows without one of their own.

    Raises Refusal when the template cannot even hold a prompt with a response.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop_id: int, system: str | None, *, keeps_empty: bool = False
    ) -> None:
        super().__init__(tokenizer, stop_id, keeps_empty=keeps_empty)
        self._tokenizer, self._system = tokenizer, system
        behind = self._render([Turn("user", "a"), Turn("assistant", _CONTENT)]).rpartition(_CONTENT)[2]
        written = next((i for i in self.tokens.written(behind) if i in self.tokens.special_ids), None)
        self._end_text = None if written is None else str(tokenizer.convert_ids_to_tokens(written))
        self.end_id = stop_id if written is None else written

    def encode(self, row: Row, train_on: TrainOn) -> Encoded:
        """As rendered and tokenised in one piece, up to the end of the last turn.

        A reference holds what the rendered conversation holds behind the prompt, thoughts that the template adds
        included. Some templates rewrite a turn once it is over, so that the prompt is no prefix of the conversation or
        the response is not in it; then the response's own ids and the end token stand for it. Of several trained turns
        each must be as the template first had it (Refusal).
        """
        if not row.prompt.strip() and not self.keeps_empty:
            return Encoded([], None if row.response is None else [self.end_id])
        escaped = Escaped(self.tokens, turns_of(row, self._system))
        turns, trained = escaped.turns, _trained(row, escaped.turns, train_on)
        opening = self._render(turns[: trained[0]], opens=True)
        if row.response is None:
            return Encoded(escaped.ids(opening), None)
        spans = self._spans(turns, trained, opening)
        if spans is not None:
            prompt, *pieces = escaped.pieces(spans)
            flags = [i % 2 == 0 for i, piece in enumerate(pieces) for _ in piece]
            return Encoded(prompt, list(chain.from_iterable(pieces)), None if all(flags) else flags)
        if len(trained) > 1:
            found = "the chat template rewrites an earlier assistant turn, or does not end it"
            raise Refusal("SKD-M09", found, "set data.train_on to last")
        response = self.tokens.content(_continuing(opening, row.response), behind=True)
        return Encoded(escaped.ids(opening), [*response, self.end_id])

    def shortened(self, row: Row, train_on: TrainOn, limit: int) -> list[int]:
        """The prompt without its oldest exchanges, as many as must go; then its last text is cut on the left."""
        turns = turns_of(row, self._system)
        turns = turns[: _trained(row, turns, train_on)[0]]
        escaped = Escaped(self.tokens, turns)
        first = 1 if turns[0].role == "system" else 0
        *context, last = escaped.turns
        while len(context) > first and len(escaped.ids(self._render([*context, last], opens=True))) > limit:
            del context[first : first + 2]
        ids = escaped.ids(self._render([*context, last], opens=True))
        if len(ids) <= limit:
            return ids
        before, _, after = self._render([*context, Turn("user", _CONTENT)], opens=True).partition(_CONTENT)
        front, back = escaped.ids(before), escaped.ids(after, behind=True)
        room = limit - len(front) - len(back)
        return front + self.tokens.content(turns[-1].content, behind=True)[-room:] + back if room > 0 else []

    def _spans(self, turns: Sequence[Turn], trained: Sequence[int], opening: str) -> list[str] | None:
        """The rendered conversation cut where trained turns begin and end: prompt, turn, between, turn ...

        None when the template does not write it so: an opened turn that is no prefix, a text changed, no end token.
        """
        whole, spans, done = self._render(turns), [], 0
        for index in trained:
            opened = opening if index == trained[0] else self._render(turns[:index], opens=True)
            end = whole.find(self._end_text, len(opened)) if self._end_text else -1
            if end < 0 or not whole.startswith(opened):
                return None
            end += len(self._end_text or "")
            written = whole[len(opened) : end]
            if _squeezed(turns[index].content) not in _squeezed(written):
                return None
            spans += [whole[done : len(opened)], written]
            done = end
        return spans

    def _render(self, turns: Sequence[Turn], opens: bool = False) -> str:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return render(self._tokenizer, messages, add_generation_prompt=opens)
        except TemplateRefusal as error:
            roles = ", ".join(turn.role for turn in turns[:8]) + (", ..." if len(turns) > 8 else "")
            remedy = "take such turns out of the data, or use a model whose template has them"
            if self._system is not None:
                remedy = "leave data.system out or set data.chat to never"
            raise Refusal(
                "SKD-M08", f"the chat template refuses the roles {roles}: {_first_line(error)}", remedy
            ) from None


def turns_of(row: Row, system: str | None) -> list[Turn]:
    """All turns of a row; ``system`` in front where it has no such message of its own."""
    turns = [*row.context, Turn("user", row.prompt)]
    if system is not None and turns[0].role != "system":
        turns.insert(0, Turn("system", system))
    return turns if row.response is None else [*turns, Turn("assistant", row.response)]


def _trained(row: Row, turns: Sequence[Turn], train_on: TrainOn) -> list[int]:
    """Which turns are learned from; of a row without response, the one that is to be written."""
    if row.response is None:
        return [len(turns)]
    return [i for i, turn in enumerate(turns) if turn.role == "assistant"][0 if train_on == "all" else -1 :]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _continuing(opening: str, response: str) -> str:
    """The response behind an opened turn: a thought that the opening has begun is not begun again."""
    if not opening.rstrip().endswith(_THINK) or not response.lstrip().startswith(_THINK):
        return response
    thought = response.lstrip().removeprefix(_THINK)
    return thought.lstrip("\n") if opening.endswith("\n") else thought

"""From rows to token ids: chat template or plain text, references with their end token, length limits.

Text becomes ids here and nowhere else. What stands in a row is content: text that spells a special token, such as
``<|im_end|>``, is tokenised as ordinary text and cannot end a turn.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from skd.data.rows import Row
from skd.errors import ConfigError, DataError, ModelError, Problem
from skd.rendering import TemplateRefusal, render
from skd.types import Prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["encode_prompts"]

logger = logging.getLogger(__name__)

Chat = Literal["auto", "always", "never"]
LongPrompt = Literal["error", "skip", "truncate_left"]

_CONTENT = "CONTENT-OF-THE-ROW"
"""Stands for a row's text when a template is rendered to see what it puts around it."""


def encode_prompts(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat: Chat = "auto",
    system: str | None = None,
    max_prompt_tokens: int = 1024,
    on_long_prompt: LongPrompt = "error",
    stop_id: int,
) -> Prompts:
    """The prompts of a data set as ids, with references where every row has a response.

    With ``chat="auto"`` the chat template is used when the tokenizer has one; otherwise the text with the tokenizer's
    own special tokens in front (never an end token behind). A reference ends with the template's end-of-turn token, or
    with ``stop_id``. ``sample_ids`` are the row numbers; they differ from the positions only where
    ``on_long_prompt="skip"`` dropped rows.

    Raises ModelError when a template is missing or refuses a row (SKD-M08), DataError for empty prompts (SKD-D05),
    rows with and without response side by side (SKD-D04), and prompts over ``max_prompt_tokens`` (SKD-D08);
    ConfigError for a system text that no template could place (SKD-C10).
    """
    frame: _Frame = _Frame(tokenizer, stop_id)
    if _uses_template(tokenizer, chat, system):
        frame = _ChatFrame(tokenizer, stop_id, system)
    ids = [frame.prompt(row.prompt) for row in rows]
    _check_rows(rows, ids)
    _tell_special_text(rows, frame)
    kept = _fit(rows, ids, frame, max_prompt_tokens, on_long_prompt)
    references = None
    if rows and rows[0].response is not None:
        references = [frame.reference(rows[i].prompt, rows[i].response or "", ids[i]) for i in kept]
    return Prompts(list(kept.values()), list(kept), references)


class _Frame:
    """Plain text: what the tokenizer itself puts in front of a text, then the text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_id: int) -> None:
        self.tokenizer, self.end_id = tokenizer, stop_id
        added = tokenizer.added_tokens_decoder
        self.special_ids = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
        self.special_texts = [str(tokenizer.convert_ids_to_tokens(i)) for i in sorted(self.special_ids)]
        # A tokenizer may also add an end token; what it adds in front is what comes before the first id of the text.
        whole, bare = tokenizer("a")["input_ids"], self.content("a")
        self.before: list[int] = whole[: whole.index(bare[0])]
        self.after: list[int] = []

    def content(self, text: str) -> list[int]:
        """Ids of a row's text; special tokens in it are split into ordinary ones."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def prompt(self, text: str) -> list[int]:
        """Ids of a prompt; empty when the text has no ids."""
        content = self.content(text)
        return self.before + content + self.after if content else []

    def shortened(self, text: str, limit: int) -> list[int]:
        """The prompt with its content cut on the left to ``limit`` ids; empty when no content would be left."""
        room = limit - len(self.before) - len(self.after)
        return self.before + self.content(text)[-room:] + self.after if room > 0 else []

    def reference(self, prompt: str, response: str, prompt_ids: list[int]) -> list[int]:
        """Ids of the response and the token that ends it."""
        return [*self.content(response), self.end_id]

    def special_text(self, text: str) -> str | None:
        """A special token that is spelt out in ``text``."""
        return next((special for special in self.special_texts if special in text), None)


class _ChatFrame(_Frame):
    """A chat template: system text, the prompt as the user's turn, the opening of the assistant's turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_id: int, system: str | None) -> None:
        super().__init__(tokenizer, stop_id)
        self._system = system
        before, _, after = self._render(_CONTENT).partition(_CONTENT)
        self.before, self.after = self._template_ids(before), self._template_ids(after)
        self._trims = f" {_CONTENT} " not in self._render(f" {_CONTENT} ")
        behind = self._template_ids(self._render("a", _CONTENT).rpartition(_CONTENT)[2])
        self.end_id = next((i for i in behind if i in self.special_ids), stop_id)

    def prompt(self, text: str) -> list[int]:
        """As rendered and tokenised in one piece, unless the text spells a special token."""
        if not text.strip():
            return []
        if self.special_text(text):
            return super().prompt(text.strip() if self._trims else text)
        return self._template_ids(self._render(text))

    def reference(self, prompt: str, response: str, prompt_ids: list[int]) -> list[int]:
        """What the rendered conversation holds behind the prompt, up to the end of the turn.

        Some templates rewrite earlier turns, so that the prompt is no prefix of the conversation; then the response's
        own ids and the end token stand for it.
        """
        if not self.special_text(prompt) and not self.special_text(response):
            conversation = self._template_ids(self._render(prompt, response))
            written = conversation[len(prompt_ids) :]
            if conversation[: len(prompt_ids)] == prompt_ids and self.end_id in written:
                return written[: written.index(self.end_id) + 1]
        return super().reference(prompt, response, prompt_ids)

    def _template_ids(self, rendered: str) -> list[int]:
        return list(self.tokenizer(rendered, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    def _render(self, prompt: str, response: str | None = None) -> str:
        messages = [{"role": "user", "content": prompt}]
        if self._system is not None:
            messages.insert(0, {"role": "system", "content": self._system})
        if response is not None:
            messages.append({"role": "assistant", "content": response})
        opens = response is None
        try:
            return render(self.tokenizer, messages, add_generation_prompt=opens)
        except TemplateRefusal as error:
            found = f"the chat template refuses the roles {[message['role'] for message in messages]}: {error}"
            remedy = "leave data.system out or set data.chat to never"
            raise ModelError(Problem("SKD-M08", "data.chat", found, remedy)) from None


def _uses_template(tokenizer: PreTrainedTokenizerBase, chat: Chat, system: str | None) -> bool:
    uses = chat != "never" and tokenizer.chat_template is not None
    if chat == "always" and not uses:
        found, remedy = "the tokenizer has no chat template", "set data.chat to auto or never, or use a chat model"
        raise ModelError(Problem("SKD-M08", "data.chat", found, remedy))
    if system is not None and not uses:
        found = "a system text is set, but no chat template is used that could place it"
        raise ConfigError(
            Problem("SKD-C10", "data.system", found, "leave data.system out or write it into the prompts")
        )
    return uses


def _check_rows(rows: Sequence[Row], ids: Sequence[list[int]]) -> None:
    empty = [i for i, prompt in enumerate(ids) if not prompt]
    problems = []
    if empty:
        found = f"{len(empty)} of {len(rows)} prompts have no tokens, first in row {empty[0]}"
        problems.append(Problem("SKD-D05", "data", found, "fill or remove these rows"))
    missing = [i for i, row in enumerate(rows) if row.response is None]
    if 0 < len(missing) < len(rows):
        found = f"{len(missing)} of {len(rows)} rows have no response, first row {missing[0]}"
        problems.append(Problem("SKD-D04", "data", found, "give all rows a response or none"))
    if problems:
        raise DataError(problems)


def _tell_special_text(rows: Sequence[Row], frame: _Frame) -> None:
    found = [frame.special_text(f"{row.prompt}\n{row.response or ''}") for row in rows]
    spelt = [special for special in found if special]
    if spelt:
        logger.warning(
            "%d of %d rows spell a special token, such as %s; it is tokenised as ordinary text",
            len(spelt),
            len(rows),
            spelt[0],
        )


def _fit(
    rows: Sequence[Row], ids: Sequence[list[int]], frame: _Frame, limit: int, policy: LongPrompt
) -> dict[int, list[int]]:
    """The prompts that are kept, by row number, none longer than ``limit``."""
    long = {i for i, prompt in enumerate(ids) if len(prompt) > limit}
    if not long:
        return dict(enumerate(ids))
    longest = max(long, key=lambda i: len(ids[i]))
    found = (
        f"{len(long)} of {len(rows)} prompts are longer than {limit} tokens; the longest, row {longest}, "
        f"has {len(ids[longest])}"
    )
    if policy == "error":
        remedy = "raise data.max_prompt_tokens, or set data.on_long_prompt to skip or truncate_left"
        raise DataError(Problem("SKD-D08", "data.max_prompt_tokens", found, remedy))
    logger.warning("%s; data.on_long_prompt: %s", found, policy)
    if policy == "skip":
        kept = {i: prompt for i, prompt in enumerate(ids) if i not in long}
    else:
        kept = {i: frame.shortened(rows[i].prompt, limit) if i in long else prompt for i, prompt in enumerate(ids)}
    if not kept or not all(kept.values()):
        raise DataError(
            Problem("SKD-D08", "data.max_prompt_tokens", f"{found}; nothing is left of them", "raise the limit")
        )
    return kept

"""From rows to token ids: chat template or plain text, references with their end tokens and masks, length limits."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

from skd.data.encoding import Encoding, LongPrompt, Refusals
from skd.data.frames import ChatFrame, Frame, Refusal, TrainOn
from skd.data.prompt_template import Template
from skd.data.records import OnEmpty
from skd.data.rows import Row
from skd.data.spool import TokenLists
from skd.data.templates import require_template
from skd.errors import ConfigError, ModelError, Problem
from skd.types import Prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from skd.config import DataConfig

__all__ = ["encode_prompts", "encode_set"]

Chat = Literal["auto", "always", "never"]


def encode_prompts(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat: Chat = "auto",
    system: str | None = None,
    train_on: TrainOn = "last",
    max_prompt_tokens: int = 1024,
    on_long_prompt: LongPrompt = "error",
    on_empty: OnEmpty = "error",
    stop_id: int,
) -> Prompts:
    """The prompts of a data set as ids, with references where every row has a response.

    With ``chat="auto"`` the chat template is used when the tokenizer has one; otherwise the text with the tokenizer's
    own special tokens in front (never an end token behind). A reference ends with the template's end-of-turn token, or
    with ``stop_id``. ``system`` is for rows without a system message of their own. ``sample_ids`` are the row numbers;
    they differ from the positions only where ``on_long_prompt="skip"`` dropped rows.

    With ``train_on="all"``, the prompt of a conversation ends before its first assistant turn; the reference is all the
    rest, and its mask is true in the assistant turns, their end tokens included. Where every token of every reference
    is learned from, there are no masks.

    Raises ModelError when a template is missing or refuses a row (SKD-M08), rewrites turns that are to be trained
    (SKD-M09) or does not end (SKD-M10); DataError for empty prompts, or with ``on_empty="keep"`` for those that get no
    token from what stands around them (SKD-D05), rows with and without response side by side (SKD-D04), and prompts
    over ``max_prompt_tokens`` (SKD-D08); ConfigError for a system text that no template could place (SKD-C10).
    """
    frame = _frame(tokenizer, stop_id, chat, system, on_empty)
    encoding = Encoding(frame, train_on, max_prompt_tokens, on_long_prompt)
    for row in rows:
        encoding.add(row)
    return encoding.finished()


def encode_set(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, data: DataConfig, stop_id: int) -> Prompts:
    """``encode_prompts`` as the ``data`` section of a config says, with the teacher's own prompts where it has some.

    Raises as that does, and ConfigError for a prompt of the teacher that cannot be filled in (SKD-C10).
    """
    prompts = encode_prompts(
        rows,
        tokenizer,
        chat=data.chat,
        system=data.system,
        train_on=data.train_on,
        max_prompt_tokens=data.max_prompt_tokens,
        on_long_prompt=data.on_long_prompt,
        on_empty=data.on_empty,
        stop_id=stop_id,
    )
    if any(row.route is not None for row in islice(rows, 1)):
        prompts = replace(prompts, routes=[sys.intern(rows[number].route or "") for number in prompts.sample_ids])
    if data.teacher_prompt is None:
        return prompts
    filled = (_filled(Template(data.teacher_prompt), rows[number]) for number in prompts.sample_ids)
    frame = _frame(tokenizer, stop_id, data.chat, data.system, data.on_empty)
    return replace(prompts, teacher_ids=_prompt_ids(filled, frame, data.train_on))


def _filled(template: Template, row: Row) -> Row:
    """The row as the teacher reads it, without its response behind the prompt."""
    values = {"prompt": row.prompt} | ({} if row.response is None else {"response": row.response})
    lacking = [name for name in template.fields if name not in values]
    if lacking:
        found = f"names {{{lacking[0]}}}, and the rows have {' and '.join(f'{{{name}}}' for name in values)}"
        remedy = "write those names; for a brace that is text write {{ and }}"
        raise ConfigError(Problem("SKD-C10", "data.teacher_prompt", found, remedy))
    return replace(row, prompt=template.fill(values), response=None)


def _frame(
    tokenizer: PreTrainedTokenizerBase, stop_id: int, chat: Chat, system: str | None, on_empty: OnEmpty
) -> Frame:
    keeps_empty = on_empty == "keep"
    if not _uses_template(tokenizer, chat, system):
        return Frame(tokenizer, stop_id, keeps_empty=keeps_empty)
    require_template(tokenizer)
    try:
        return ChatFrame(tokenizer, stop_id, system, keeps_empty=keeps_empty)
    except Refusal as refusal:
        raise ModelError(Problem(refusal.code, "data.chat", refusal.found, refusal.remedy)) from None


def _prompt_ids(rows: Iterable[Row], frame: Frame, train_on: TrainOn) -> TokenLists:
    """The prompt of every row. Raises ModelError for all rows that do not fit the frame."""
    ids, refusals = TokenLists(), Refusals()
    for row in rows:
        with refusals.noting():
            ids.append(frame.encode(row, train_on).prompt)
    refusals.require_none()
    return ids


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

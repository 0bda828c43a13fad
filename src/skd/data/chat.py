"""From rows to token ids: chat template or plain text, references with their end tokens and masks, length limits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from skd.data.frames import ChatFrame, Encoded, Frame, Refusal, TrainOn
from skd.data.prompt_template import Template
from skd.data.rows import Row
from skd.data.templates import require_template
from skd.errors import ConfigError, DataError, ModelError, Problem
from skd.types import Prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from skd.config import DataConfig

__all__ = ["encode_prompts", "encode_set"]

logger = logging.getLogger(__name__)

Chat = Literal["auto", "always", "never"]
LongPrompt = Literal["error", "skip", "truncate_left"]


def encode_prompts(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat: Chat = "auto",
    system: str | None = None,
    train_on: TrainOn = "last",
    max_prompt_tokens: int = 1024,
    on_long_prompt: LongPrompt = "error",
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
    (SKD-M09) or does not end (SKD-M10); DataError for empty prompts (SKD-D05),
    rows with and without response side by side (SKD-D04), and prompts over ``max_prompt_tokens`` (SKD-D08);
    ConfigError for a system text that no template could place (SKD-C10).
    """
    frame = _frame(tokenizer, stop_id, chat, system)
    encoded = _encoded(rows, frame, train_on)
    ids = [row.prompt for row in encoded]
    _check_rows(rows, ids)
    _tell_special_text(rows, frame)
    kept = _fit(rows, ids, frame, train_on, max_prompt_tokens, on_long_prompt)
    references = [encoded[i].reference or [] for i in kept] if rows and rows[0].response is not None else None
    masks = [encoded[i].mask or [True] * len(encoded[i].reference or []) for i in kept]
    masked = any(encoded[i].mask is not None for i in kept)
    return Prompts(list(kept.values()), list(kept), references, masks if masked else None)


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
        stop_id=stop_id,
    )
    if data.teacher_prompt is None:
        return prompts
    filled = [_filled(Template(data.teacher_prompt), rows[number]) for number in prompts.sample_ids]
    frame = _frame(tokenizer, stop_id, data.chat, data.system)
    return replace(prompts, teacher_ids=[row.prompt for row in _encoded(filled, frame, data.train_on)])


def _filled(template: Template, row: Row) -> Row:
    """The row as the teacher reads it, without its response behind the prompt."""
    values = {"prompt": row.prompt} | ({} if row.response is None else {"response": row.response})
    lacking = [name for name in template.fields if name not in values]
    if lacking:
        found = f"names {{{lacking[0]}}}, and the rows have {' and '.join(f'{{{name}}}' for name in values)}"
        remedy = "write those names; for a brace that is text write {{ and }}"
        raise ConfigError(Problem("SKD-C10", "data.teacher_prompt", found, remedy))
    return replace(row, prompt=template.fill(values), response=None)


def _frame(tokenizer: PreTrainedTokenizerBase, stop_id: int, chat: Chat, system: str | None) -> Frame:
    if not _uses_template(tokenizer, chat, system):
        return Frame(tokenizer, stop_id)
    require_template(tokenizer)
    try:
        return ChatFrame(tokenizer, stop_id, system)
    except Refusal as refusal:
        raise ModelError(Problem(refusal.code, "data.chat", refusal.found, refusal.remedy)) from None


def _encoded(rows: Sequence[Row], frame: Frame, train_on: TrainOn) -> list[Encoded]:
    """Every row as ids. Raises ModelError for all rows that do not fit the frame, by kind."""
    encoded: list[Encoded] = []
    refused: dict[tuple[str, str], list[str]] = {}
    for i, row in enumerate(rows):
        try:
            encoded.append(frame.encode(row, train_on))
        except Refusal as refusal:
            refused.setdefault((refusal.code, refusal.remedy), []).append(f"row {i}: {refusal.found}")
    problems = [
        Problem(code, "data.chat", f"{len(found)} of {len(rows)} rows do not fit, first {found[0]}", remedy)
        for (code, remedy), found in refused.items()
    ]
    if problems:
        raise ModelError(problems)
    return encoded


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


def _tell_special_text(rows: Sequence[Row], frame: Frame) -> None:
    spelt = [special for row in rows if (special := frame.special_text(row))]
    if spelt:
        logger.warning(
            "%d of %d rows spell a special token, such as %s; it is tokenised as ordinary text",
            len(spelt),
            len(rows),
            spelt[0],
        )


def _fit(
    rows: Sequence[Row], ids: Sequence[list[int]], frame: Frame, train_on: TrainOn, limit: int, policy: LongPrompt
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
        kept = {i: frame.shortened(rows[i], train_on, limit) if i in long else prompt for i, prompt in enumerate(ids)}
    if not kept or not all(kept.values()):
        raise DataError(
            Problem("SKD-D08", "data.max_prompt_tokens", f"{found}; nothing is left of them", "raise the limit")
        )
    return kept

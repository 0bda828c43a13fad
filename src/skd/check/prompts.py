"""The rows as token ids: templates, lengths, and what would be left to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from skd.check.models import Words
from skd.check.report import Part
from skd.config import DataConfig, PolicyConfig, RunConfig
from skd.data.frames import turns_of
from skd.data.rows import Row
from skd.errors import ConfigError, DataError, Problem
from skd.rendering import TemplateRefusal, render
from skd.types import Prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from skd.check.rows import Set

__all__ = ["check_contexts", "check_gates", "check_prompts", "check_references", "longest_responses"]


def check_prompts(
    part: Part, data: DataConfig, rows: tuple[Set | None, Set | None], words: Words
) -> Mapping[str, Prompts]:
    """The rows of both sets as ids, by key ("data.train" and "data.validation"), without those that are wrong."""
    prompts = {}
    with part.noting():
        first = next((group[0] for group in rows if isinstance(group, Sequence)), None)
        if first is not None:
            _check_template(part, data, first, words)
        for key, group in zip(("data.train", "data.validation"), rows, strict=True):
            with part.noting(), _placed(key):
                if group is not None:
                    prompts[key] = _encoded(data, group, words)
                    part.facts.append(_lengths(key, prompts[key]))
                    if isinstance(group, Sequence):  # a model may end at once, and that token is learned from
                        _check_empty(part, data, key, prompts[key])
    return prompts


def _encoded(data: DataConfig, rows: Set, words: Words) -> Prompts:
    from skd.data.chat import encode_set
    from skd.models.vocabulary import vocabulary_digest

    if not isinstance(rows, Sequence):
        rows.require_vocabulary(vocabulary_digest(words.tokenizer))
        return rows.prompts
    return encode_set(rows, words.tokenizer, data, words.end_id)


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Say which data or model a DataError is about."""
    try:
        yield
    except DataError as error:
        places = [where if found.place == "data" else f"{where}, {found.place}" for found in error.problems]
        raise DataError(
            [replace(found, place=place) for found, place in zip(error.problems, places, strict=True)]
        ) from error


def _lengths(key: str, prompts: Prompts) -> str:
    text = f"{key}: longest prompt {max(map(len, prompts.ids), default=0):,} tokens"
    if prompts.references is None:
        return text
    return f"{text}, longest response {max(map(len, prompts.references), default=0):,}"


def _check_empty(part: Part, data: DataConfig, key: str, prompts: Prompts) -> None:
    empty = [row for row, ids in zip(prompts.sample_ids, prompts.references or (), strict=False) if len(ids) <= 1]
    if empty and data.on_empty == "keep":
        part.facts.append(f"{key}: {len(empty)} of {len(prompts)} responses are empty and teach to end at once")
    elif empty:
        found = f"{len(empty)} of {len(prompts)} responses have no token but the end token, first in row {empty[0]}"
        part.errors.append(
            DataError(Problem("SKD-D11", key, found, "fill or remove these rows, or set data.on_empty to keep"))
        )


def longest_responses(config: RunConfig, prompts: Prompts) -> list[int]:
    """The longest response that each prompt can get: its reference, the cap, or the longer of the two."""
    lengths = [0] * len(prompts)
    if "data_set" in config.writers and prompts.references is not None:
        lengths = [len(ids) for ids in prompts.references]
    if config.writers != {"data_set"}:
        lengths = [max(length, config.sampling.max_new_tokens) for length in lengths]
    return lengths


def check_references(part: Part, config: RunConfig, sets: Mapping[str, Prompts]) -> None:
    """A policy that takes the data's responses, alone or in a mixture, needs rows that have some (SKD-C10)."""
    for key, prompts in sets.items():
        if "data_set" in config.writers and prompts.references is None:
            mixed = "" if config.policy.kind == "data_set" else f"; policy.kind {config.policy.kind} has it as a part"
            found = f"the rows have no responses, and policy data_set trains on them{mixed}"
            remedy = "add responses to the rows, or choose a policy without data_set"
            part.errors.append(ConfigError(Problem("SKD-C10", key, found, remedy)))


def check_gates(part: Part, config: RunConfig, words: Words) -> None:
    """A gate that looks at more tokens than there are keeps every draft (SKD-G06)."""
    for policy in _policies(config.policy):
        k = getattr(getattr(policy, "gate", None), "k", None)
        # One that changes over the training may well begin with all tokens.
        if isinstance(k, int | float) and k > words.vocab_size:
            found = f"is {k:g}, and the models share {words.vocab_size:,} tokens, so that every draft is kept"
            remedy = f"write at most {words.vocab_size}, or gate: accept_all if that is meant"
            part.errors.append(ConfigError(Problem("SKD-G06", "policy.gate.k", found, remedy)))


def _policies(policy: PolicyConfig) -> Iterator[PolicyConfig]:
    """A policy and all inside it."""
    yield policy
    for inner in getattr(policy, "parts", ()):
        yield from _policies(inner.policy)


def check_contexts(
    part: Part,
    config: RunConfig,
    sets: Mapping[str, Prompts],
    words: Words,
    models: Mapping[str, PreTrainedModel],
) -> None:
    """Every prompt of the sets fits the context of each model with its longest response (SKD-D09)."""
    from skd.sampling.cache import context_length
    from skd.sampling.checks import require_prompts

    for key, prompts in sets.items():
        for name, model in models.items():
            read = _read_by(name, prompts)
            with part.noting(), _placed(f"{key}, {name}"):
                require_prompts(read, longest_responses(config, read), context_length(model), words.vocab_size)


def _read_by(model: str, prompts: Prompts) -> Prompts:
    """The prompts that a model reads: of several teachers each its own."""
    if model == "student" or prompts.routes is None:
        return prompts
    return prompts.select([i for i, route in enumerate(prompts.routes) if model == f"teacher.by.{route}"])


def _check_template(part: Part, data: DataConfig, row: Row, words: Words) -> None:
    """Whether the prompt is a prefix of the conversation (SKD-M09): a warning, since responses are then appended."""
    if data.chat == "never" or words.tokenizer.chat_template is None:
        part.facts.append("no chat template is used")
        return
    turns = turns_of(replace(row, response=row.response or "a"), data.system)
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        prompt = render(words.tokenizer, messages[:-1], add_generation_prompt=True)
        whole = render(words.tokenizer, messages, add_generation_prompt=False)
    except (TemplateRefusal, ValueError):
        return  # told by encode_set, with the roles or the names of several templates
    part.facts.append("chat template used")
    if not whole.startswith(prompt):
        found = "the chat template writes a finished turn otherwise than it opens one"
        remedy = "nothing need be done: responses are appended to the opened turn as they are"
        part.warnings.append(Problem("SKD-M09", "data.chat", found, remedy))

"""What the sampler refuses, and in which words."""

from __future__ import annotations

from collections.abc import Sequence

from skd.errors import ConfigError, DataError, NumericsError, Problem
from skd.sampling.slots import Request
from skd.types import Prompts

__all__ = ["not_finite", "require_positive", "require_prompts", "require_stop_strings"]


def require_positive(**counts: int) -> None:
    """Every count is 1 or more (ConfigError naming each that is not)."""
    problems = [
        Problem("SKD-C07", name, f"is {count}; it must be 1 or more", "write a positive number")
        for name, count in counts.items()
        if count < 1
    ]
    if problems:
        raise ConfigError(problems)


def require_stop_strings(strings: Sequence[str]) -> None:
    """A list of texts, none of them empty (ConfigError)."""
    if isinstance(strings, str):
        raise ConfigError(Problem("SKD-C07", "stop_strings", f"is the text {strings!r}", f"write [{strings!r}]"))
    if "" in strings:
        raise ConfigError(Problem("SKD-C07", "stop_strings", "holds an empty text, which ends everything", "remove it"))


def require_prompts(prompts: Prompts, response_lengths: Sequence[int], context: int, vocab_size: int) -> None:
    """Every prompt has tokens of the shared vocabulary, and fits the context together with its longest response.

    Raises DataError with all that is wrong; of prompts that are too long, with the longest.
    """
    problems: list[Problem] = []
    for name, ids in (("prompt", prompts.ids), ("teacher's prompt", prompts.teacher_ids)):
        if ids is not None:
            rows = zip(prompts.sample_ids, ids, strict=True)
            problems += filter(None, (_unreadable(f"{name} {row}", inside, vocab_size) for row, inside in rows))
            problems += _too_long(name, prompts.sample_ids, ids, response_lengths, context)
    if problems:
        raise DataError(problems)


def _unreadable(place: str, ids: Sequence[int], vocab_size: int) -> Problem | None:
    if len(ids) == 0:
        return Problem("SKD-D05", place, "has no tokens", "give it at least one token")
    if min(ids) < 0 or max(ids) >= vocab_size:
        found = f"holds an id outside 0..{vocab_size - 1}, the ids that teacher and student share"
        return Problem("SKD-D05", place, found, "encode the prompts with the pair's tokenizer")
    return None


def _too_long(
    name: str, rows: Sequence[int], prompts: Sequence[Sequence[int]], response_lengths: Sequence[int], context: int
) -> list[Problem]:
    sums = [len(ids) + length for ids, length in zip(prompts, response_lengths, strict=True)]
    over = [row for row, length in enumerate(sums) if length > context]
    if not over:
        return []
    longest = max(over, key=lambda row: sums[row])
    arithmetic = f"{len(prompts[longest])} + response {response_lengths[longest]} = {sums[longest]}"
    others = f" ({len(over)} of {len(sums)} prompts do)" if len(sums) > 1 else ""
    found = f"prompt {arithmetic} tokens exceed the context of {context}{others}"
    remedy = "shorten the prompts, or the response by max_new_tokens"
    return [Problem("SKD-D09", f"{name} {rows[longest]}", found, remedy)]


def not_finite(request: Request, role: str) -> NumericsError:
    """The error for a model whose output is not finite."""
    return NumericsError(
        Problem(
            "SKD-G06",
            f"prompt {request.sample_id}",
            f"the {role}'s hidden states are not finite",
            f"check the {role}'s weights and dtype (float16 overflows; use bfloat16 or float32)",
        )
    )

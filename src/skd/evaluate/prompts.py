"""The rows of a workload as token ids, as the model's own chat template has them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from skd.evaluate.workload import Workload
from skd.types import Prompts

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["Decoding", "encoded"]


@dataclass(frozen=True)
class Decoding:
    """How responses are written."""

    temperature: float = 0.0
    """0 takes the most probable token."""
    seed: int = 0
    """Keys the draws above temperature 0; greedy decoding has none."""
    slots: int = 64
    """Responses written at once; changes speed and memory, not the responses."""
    long_prompts: Literal["error", "truncate_left"] = "error"
    """What happens to a prompt above the task's cap."""


def encoded(pair: Pair, work: Workload, decoding: Decoding, references: bool = False) -> Prompts:
    """All prompts of a workload, on demand with their references. Raises DataError for one that is too long."""
    if work.max_prompt_tokens is None and not references:
        return pair.encode([row.prompt for row in work.rows])
    from skd.data.chat import encode_prompts

    return encode_prompts(
        [row if references else replace(row, response=None) for row in work.rows],
        pair.tokenizer,
        max_prompt_tokens=work.max_prompt_tokens or pair.context,
        on_long_prompt=decoding.long_prompts,
        stop_id=pair.end_id,
    )

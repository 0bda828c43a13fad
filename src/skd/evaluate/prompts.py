"""The rows of a workload as token ids, as the model's own chat template has them, and how responses are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

from transformers import PreTrainedTokenizerBase

from skd.data.chat import encode_prompts
from skd.evaluate.workload import Workload
from skd.types import Prompts

__all__ = ["Decoding", "Reader", "encoded"]


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


class Reader(Protocol):
    """What a prompt must be known for: a pair, or a model that another engine holds."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own."""
        ...

    @property
    def context(self) -> int:
        """Positions that the model was built for."""
        ...

    @property
    def end_id(self) -> int:
        """The stop id appended to references."""
        ...


def encoded(reader: Reader, work: Workload, decoding: Decoding, references: bool = False) -> Prompts:
    """All prompts of a workload, on demand with their references. Raises DataError for one that is too long."""
    capped = work.max_prompt_tokens is not None
    return encode_prompts(
        [row if references else replace(row, response=None) for row in work.rows],
        reader.tokenizer,
        max_prompt_tokens=work.max_prompt_tokens or reader.context,
        on_long_prompt=decoding.long_prompts if capped or references else "error",
        stop_id=reader.end_id,
    )

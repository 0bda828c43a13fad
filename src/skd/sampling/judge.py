"""What the sampler asks of a teacher, wherever that is: a model in this process or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from skd.sampling.execution import Eager
from skd.sampling.gate import Gate
from skd.sampling.prompts import PromptCache, PromptTokens
from skd.sampling.slots import Places, Slots
from skd.sampling.warp import Warp
from skd.sampling.writer import Judged, Written
from skd.types import Evidence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Connectable", "Judge", "Opening", "TeacherEngine"]


@dataclass(frozen=True)
class Opening:
    """What a teacher must know of the rollout that it is to judge."""

    gate: Gate
    warp: Warp
    """What its tokens are drawn through."""
    num_slots: int
    capacity: int
    """Tokens of the longest row, prompt, response and one block beyond."""
    kept: PromptCache | None = None
    """Where a frozen teacher in this process may keep what it makes of prompts."""
    execution: Eager = Eager()  # noqa: RUF009 - a value without state
    """How a teacher in this process runs."""


class Judge(Protocol):
    """A teacher in one rollout."""

    @property
    def warp(self) -> Warp:
        """The distribution its tokens are drawn from."""
        ...

    def prefill(self, rows: Sequence[int], prompts: Sequence[Tensor]) -> PromptTokens:
        """Take in prompts without their last tokens, int64 [T] on the CPU, for the slots ``rows``."""
        ...

    def keep_rows(self, rows_b: Tensor) -> None:
        """Go on with these slots alone, in that order."""
        ...

    def read(self, slots: Slots, ids_BG: Tensor, places: Places) -> Judged:
        """What it thinks at each token of a drafted block."""
        ...

    def write(self, slots: Slots, noise_BG: Tensor, places: Places) -> Written:
        """Draw G tokens itself, one after the other."""
        ...

    def evidence(self, kept: Sequence[Tensor], ids: Sequence[Tensor]) -> Evidence:
        """What was kept of it at finished responses [L, E] of ids [L], in the form that the loss reads."""
        ...


class TeacherEngine(Protocol):
    """A teacher that is ready to judge and to score."""

    @property
    def context(self) -> int:
        """Most tokens of a prompt with its response."""
        ...

    @property
    def block(self) -> int | None:
        """Drafted tokens between two looks that suit it; None where the pace of the acceptance should choose."""
        ...

    @property
    def num_parameters(self) -> int:
        """Weights; 0 where they are not known."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What identifies it, for the record of a run."""
        ...

    @property
    def usage(self) -> Mapping[str, int]:
        """What it has counted since it was opened, by name of metric; empty for a model in this process."""
        ...

    def open(self, opening: Opening) -> Judge:
        """Make ready for one rollout."""
        ...

    def score(
        self, prompt_ids: Sequence[Tensor], response_ids: Sequence[Tensor], token_budget: int = 16384
    ) -> Evidence:
        """What it thinks at each token of finished responses; ``token_budget`` bounds the padded tokens at once."""
        ...


@runtime_checkable
class Connectable(Protocol):
    """Where a teacher outside this process is found."""

    def connect(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> TeacherEngine:
        """The teacher, once it has shown that it answers and reads the student's ids as the student does."""
        ...

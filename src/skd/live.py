"""``skd generate``: watch teacher and student write one response together, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skd.display import coloured_response, legend, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedTokenizerBase

__all__ = ["GenerateOptions", "Stream", "generate"]

_UNFINISHED = "�"
"""What a tokenizer shows for the first bytes of a character whose other bytes are in tokens to come."""


@dataclass(frozen=True)
class GenerateOptions:
    """How the response is sampled; defaults are the paper's."""

    k: int = 25
    block: int | None = None
    max_new_tokens: int = 128
    student_temperature: float = 0.5
    student_top_p: float = 0.5
    teacher_temperature: float = 0.2
    teacher_top_p: float = 1.0
    seed: int = 0


class Stream:
    """Prints committed tokens as they come. Text is decoded as a whole, since one token may be part of a character."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, console: Console) -> None:
        self._tokenizer, self._console = tokenizer, console
        self._ids: list[int] = []
        self._printed = 0

    def __call__(self, row: int, token_ids: list[int], authors: list[int]) -> None:
        """Called by the sampler with the tokens of ``row`` that a round committed. There is one row."""
        for token_id, author in zip(token_ids, authors, strict=True):
            self._ids.append(token_id)
            text = str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
            if not text.endswith(_UNFINISHED):
                self._print(text[self._printed :], author)
                self._printed = len(text)

    def _print(self, piece: str, author: int) -> None:
        self._console.print(coloured_response([piece], [author]), end="")
        self._console.file.flush()


def generate(teacher: str, student: str, prompt: str, options: GenerateOptions, no_color: bool = False) -> None:
    """Load the pair, print one response to ``prompt`` while it is written, then who wrote how much.

    Raises ModelError when the pair cannot be loaded or used.
    """
    from skd.models import load_pair
    from skd.sampling import TopK, Warp, interleave

    pair = load_pair(teacher, student)
    console = terminal(no_color)
    console.print(legend())
    rollout = interleave(
        pair,
        [prompt],
        gate=TopK(options.k),
        block=options.block,
        student_warp=Warp(options.student_temperature, options.student_top_p),
        teacher_warp=Warp(options.teacher_temperature, options.teacher_top_p),
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        on_commit=Stream(pair.tokenizer, console),
    )
    console.print()
    console.print(summary(rollout, options))


def summary(rollout: Any, options: GenerateOptions) -> str:
    """One line: tokens, acceptance rate, and whether the cap cut the response."""
    if not rollout.num_tokens:
        return "the response is empty"
    parts = [
        f"{rollout.num_tokens} tokens",
        f"{rollout.acceptance_rate:.1%} of the student's tokens kept (top {options.k})",
        f"{rollout.replaced_share:.1%} written by the teacher",
    ]
    if bool(rollout.truncated[0]):
        parts.append(f"cut at {options.max_new_tokens} tokens")
    return ", ".join(parts)

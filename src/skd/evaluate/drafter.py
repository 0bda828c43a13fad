"""The student as the teacher's draft model in exact speculative decoding, against the teacher on its own.

What is written is distributed as the teacher's own responses, whatever the student (Leviathan et al., 2023, arXiv
2211.17192, algorithm 1); a better student only saves looks of the teacher. The paper measures this in its appendix K.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skd.evaluate.scores import Score, sums_score
from skd.sampling import AcceptNone, Interpolated, Warp, interleave
from skd.types import STUDENT, TEACHER, Prompts, Rollout

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["Drafting", "drafter", "drafter_speed", "with_student"]

ROUNDS = 2
"""How often each prompt is answered by either side."""


@dataclass(frozen=True)
class Drafting:
    """How teacher and student write together, and the teacher alone beside it."""

    max_new_tokens: int
    stop_strings: tuple[str, ...] = ()
    temperature: float = 0.0
    """Of both models."""
    seed: int = 0
    block: int = 5
    """Tokens drafted per look of the teacher."""
    slots: int = 64

    @property
    def signature(self) -> str:
        """What the scores depend on, besides the models and the prompts."""
        return f"block:{self.block}|temperature:{self.temperature:g}"

    def together(self, pair: Pair, prompts: Prompts) -> Rollout:
        """Exact speculative decoding: the mixture that is all teacher."""
        return self._written(pair, prompts, Interpolated(1.0))

    def alone(self, pair: Pair, prompts: Prompts) -> Rollout:
        """The teacher token by token, by the same sampler."""
        return self._written(pair, prompts, AcceptNone())

    def _written(self, pair: Pair, prompts: Prompts, gate: Interpolated | AcceptNone) -> Rollout:
        warp = Warp(temperature=self.temperature)
        return interleave(
            pair,
            prompts,
            gate=gate,
            block=self.block,
            student_warp=warp,
            teacher_warp=warp,
            max_new_tokens=self.max_new_tokens,
            slots=self.slots,
            stop_strings=self.stop_strings,
            seed=self.seed,
            evidence=False,
        )


def drafter(pair: Pair, prompts: Prompts, drafting: Drafting) -> dict[str, Score]:
    """How much of the student's drafts the teacher takes.

    draft_acceptance: kept / (kept + replaced). draft_length: tokens written per look of the teacher, its own included;
    there is no bonus token after a block that is kept whole. draft_kept: of these, the student's. Intervals redraw
    items. Raises as ``interleave`` does.
    """
    rollout = drafting.together(pair, prompts)
    rows = [
        [int((authors == STUDENT).sum()), int((authors == TEACHER).sum()), looks(authors.tolist(), drafting.block)]
        for authors in rollout.authors
    ]
    return {
        "draft_acceptance": sums_score(rows, lambda sums: sums[0] / (sums[0] + sums[1]), signature=drafting.signature),
        "draft_length": sums_score(rows, lambda sums: (sums[0] + sums[1]) / sums[2], False, drafting.signature),
        "draft_kept": sums_score(rows, lambda sums: sums[0] / sums[2], False, drafting.signature),
    }


def looks(authors: Sequence[int], block: int) -> int:
    """How often the teacher looked: after every full block, at every replacement, and at the end of a started block."""
    found = drafted = 0
    for author in authors:
        drafted += 1
        if author == TEACHER or drafted == block:
            found, drafted = found + 1, 0
    return found + (drafted > 0)


def drafter_speed(pairs: Mapping[str, Pair], prompts: Prompts, drafting: Drafting) -> dict[str, Score]:
    """By name of a pair: seconds of its teacher alone / seconds of exact speculative decoding with its student.

    All pairs share one teacher. One response at a time, as draft models are used: each prompt is answered by the
    teacher alone, then with each student, and all of it twice, so that a slow moment of the machine meets all alike.
    Seconds are of processor time on a CPU and of wall time elsewhere. Intervals redraw items.
    """
    drafting, teacher = replace(drafting, slots=1), next(iter(pairs.values()))
    ways: dict[str, Callable[[Prompts], Rollout]] = {"": lambda prompt: drafting.alone(teacher, prompt)}
    for name, pair in pairs.items():
        ways[name] = lambda prompt, pair=pair: drafting.together(pair, prompt)  # type: ignore[misc]
    now = time.process_time if teacher.device.type == "cpu" else time.perf_counter
    seconds_INW = _seconds(ways, [prompts.select([i]) for i in range(len(prompts))], now).sum(axis=1)
    unit = "cpu seconds" if now is time.process_time else "wall seconds"
    signature = f"{unit}|{drafting.signature}|one response at a time"
    return {
        name: sums_score(
            seconds_INW[:, [0, column]], lambda sums: sums[0] / sums[1], is_share=False, signature=signature
        )
        for column, name in enumerate(ways)
        if name
    }


def with_student(pair: Pair, student: str | Path) -> Pair:
    """The same teacher, prompts and stop ids with another student. Raises ModelError when their tokens differ."""
    from skd.models.pair import load_pair
    from skd.models.vocabulary import shared_vocab_size

    other, teacher = load_pair(None, student, device=pair.device), pair.required_teacher
    vocab_size = shared_vocab_size(
        {"student": other.tokenizer, "teacher": pair.tokenizer}, {"student": other.student, "teacher": teacher}
    )
    shared = {name: getattr(pair, name) for name in ("teacher", "teacher_form", "tokenizer", "stop_ids")}
    return replace(other, vocab_size=vocab_size, **shared)


def _seconds(
    ways: Mapping[str, Callable[[Prompts], Rollout]], prompts: Sequence[Prompts], now: Callable[[], float]
) -> np.ndarray:
    """Seconds [items, rounds, ways]. Everything is done once before, unmeasured."""
    for way in ways.values():
        way(prompts[0])
    seconds = np.zeros((len(prompts), ROUNDS, len(ways)))
    for turn in range(ROUNDS):
        for item, prompt in enumerate(prompts):
            for column, way in enumerate(ways.values()):
                started = now()
                way(prompt)
                seconds[item, turn, column] = now() - started
    return seconds

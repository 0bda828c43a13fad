"""How many tokens to draft before the teacher looks: the block that should commit most per cost.

A block changes no response, so this is about time only. It must still be the same for every run of a config, since
shapes change the rounding of logits. So no clock is asked here: costs are known before, by the models' sizes or
measured once for a run, and the acceptance comes from counts of this rollout alone, which a resumed run writes anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LONGEST_BLOCK", "Costs", "Pace", "expected_tokens"]

LONGEST_BLOCK = 8
_FREE_TOKENS = {"cpu": 16, "cuda": 256}
"""Tokens whose arithmetic takes as long as reading the weights once: a forward costs weights x (these + its tokens)."""
_GUESS, _GUESS_WEIGHT = 0.8, 8
"""Acceptance assumed at the start of a rollout, and the tokens that it counts as."""


def expected_tokens(acceptance: float, block: int) -> float:
    """Tokens that a block commits when each draft is kept with probability ``acceptance``, replacement included.

    (1 - a^g) / (1 - a): there is no bonus token after a block that is kept whole (Leviathan et al., 2023, arXiv
    2211.17192, equation 1, for g - 1 drafts).
    """
    return float(block) if acceptance == 1.0 else (1.0 - acceptance**block) / (1.0 - acceptance)


@dataclass(frozen=True)
class Costs:
    """What a forward of either model costs, in one unit for both: for itself, and for each of its tokens."""

    student: tuple[float, float]
    teacher: tuple[float, float]

    @classmethod
    def by_size(cls, student_weights: int, teacher_weights: int, device: str) -> Costs:
        """In passes over a weight, from the numbers of parameters and the type of the device, such as "cpu"."""
        free = _FREE_TOKENS.get(device, _FREE_TOKENS["cuda"])
        return cls((student_weights * free, student_weights), (teacher_weights * free, teacher_weights))

    def round(self, rows: int, block: int) -> float:
        """Of a block drafted in so many rows and the teacher's look at it."""
        drafting = block * (self.student[0] + self.student[1] * rows)
        return drafting + self.teacher[0] + self.teacher[1] * rows * block


class Pace:
    """Chooses blocks for one rollout.

    Args:
        costs: of drafting and judging.
        fixed: always this block; None leaves the choice here.
        choices: blocks to choose from, in rising order.
    """

    def __init__(
        self, costs: Costs, fixed: int | None = None, choices: Sequence[int] = range(1, LONGEST_BLOCK + 1)
    ) -> None:
        self._costs, self._fixed, self._choices = costs, fixed, choices
        self._kept, self._judged = _GUESS * _GUESS_WEIGHT, float(_GUESS_WEIGHT)

    @property
    def longest(self) -> int:
        """The largest block that may be chosen."""
        return self._fixed or self._choices[-1]

    def saw(self, committed: Sequence[int], replaced: Sequence[int]) -> None:
        """Count what a round committed by row, and how many of it the teacher wrote."""
        self._judged += sum(committed)
        self._kept += sum(committed) - sum(replaced)

    def block(self, rows: int) -> int:
        """The block for a round of so many rows."""
        acceptance = self._kept / self._judged
        return self._fixed or min(
            self._choices, key=lambda block: self._costs.round(rows, block) / expected_tokens(acceptance, block)
        )

"""How many tokens to draft before the teacher looks: the block that should commit most per cost.

A block changes no response, so this is about time only. It must still be the same for every run of a config, since
shapes change the rounding of logits. So no clock is asked: costs come from the models' sizes, the acceptance from
counts of this rollout alone, which a resumed run writes anew.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LONGEST_BLOCK", "Pace", "expected_tokens"]

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


class Pace:
    """Chooses blocks for one rollout.

    Args:
        student_weights: parameters of the model that drafts.
        teacher_weights: parameters of the model that judges.
        device: type of the device, such as "cpu".
        fixed: always this block; None leaves the choice here.
        choices: blocks to choose from, in rising order.
    """

    def __init__(
        self,
        student_weights: int,
        teacher_weights: int,
        device: str,
        fixed: int | None,
        choices: Sequence[int] = range(1, LONGEST_BLOCK + 1),
    ) -> None:
        self._student, self._teacher = student_weights, teacher_weights
        self._free = _FREE_TOKENS.get(device, _FREE_TOKENS["cuda"])
        self._fixed, self._choices = fixed, choices
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
        return self._fixed or min(self._choices, key=lambda block: self._cost(rows, block))

    def _cost(self, rows: int, block: int) -> float:
        drafting = block * self._student * (self._free + rows)
        judging = self._teacher * (self._free + rows * block)
        return (drafting + judging) / expected_tokens(self._kept / self._judged, block)

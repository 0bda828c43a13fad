"""What the forwards of a pair cost on this machine, measured with the sampler itself."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from skd.sampling.execution import Eager
from skd.sampling.gates import MinProb
from skd.sampling.interleave import interleave
from skd.sampling.pace import LONGEST_BLOCK, Costs
from skd.types import Prompts

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["measured_costs"]

_REPEATS = 3


def measured_costs(
    pair: Pair, prompts: Prompts, rows: int, max_new_tokens: int = LONGEST_BLOCK, execution: Eager | None = None
) -> Costs:
    """Seconds of a forward by each model of a pair with a teacher, and for each token of it: lines through two points.

    One row in blocks of 1, and ``rows`` of them in the longest block that ``max_new_tokens`` allows: that is 1 and
    ``rows`` tokens to a forward of the student, 1 and ``rows`` times that block to one of the teacher. Medians of some
    rollouts, after one that does not count. ``prompts`` are repeated where they are too few. Raises as ``interleave``.
    """
    endless, longest = replace(pair, stop_ids=frozenset()), min(LONGEST_BLOCK, max_new_tokens)
    execution = execution or Eager()
    # Weights are packed once, not for each of these short rollouts: a long one spends little time on it.
    within = execution if execution.fixed_shapes else Eager(0)

    def seconds(rows: int, block: int) -> tuple[float, float]:
        stats = [
            interleave(
                endless,
                prompts.select([row % len(prompts) for row in range(rows)]),
                gate=MinProb(0.0),  # keeps all
                block=block,
                max_new_tokens=longest,
                slots=rows,
                execution=within,
            ).stats
            for _ in range(_REPEATS + 1)
        ][1:]
        draft = statistics.median(one.seconds_draft / (one.rounds * block) for one in stats)
        return draft, statistics.median(one.seconds_judge / one.rounds for one in stats)

    with execution.running(pair.sampling_student, pair.teacher, frozen=False):
        (student_one, teacher_one), (student_many, teacher_many) = seconds(1, 1), seconds(rows, longest)
    return Costs(_line(student_one, student_many, rows), _line(teacher_one, teacher_many, rows * longest))


def _line(one: float, many: float, tokens: int) -> tuple[float, float]:
    """Of a forward and of each token, from forwards with one and with several tokens; none of them is negative."""
    each = max(0.0, many - one) / (tokens - 1) if tokens > 1 else 0.0
    each = min(each, many / tokens)
    return max(0.0, one - each), each

"""What is measured besides a task's own metric: COMET, tests of programs, closeness to the teacher, drafting for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skd.evaluate.code import EvalPlus
from skd.evaluate.comet import Comet
from skd.evaluate.prompts import Decoding, encoded
from skd.evaluate.scores import Score
from skd.evaluate.workload import Workload

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["Drafters", "Extra"]

DRAFTED_ITEMS = 64
"""Prompts on which the student drafts for its teacher."""


@dataclass(frozen=True)
class Drafters:
    """What to measure of students as draft models, as the user says it."""

    block: int = 5
    """Tokens drafted per look of the teacher."""
    timed: bool = False
    """Time speculative decoding against the teacher alone, too."""
    before: str | None = None
    """The student before its training: measured in the same way, beside the other."""


@dataclass(frozen=True)
class Extra:
    """``students``: pairs of the teacher and each student that drafts, by what follows the names of their scores; the
    evaluated one has nothing there. Empty without a teacher."""

    comet: Comet | None = None
    evalplus: EvalPlus | None = None
    students: Mapping[str, Pair] = field(default_factory=dict)
    drafters: Drafters = Drafters()

    def provenance(self) -> dict[str, Any]:
        """The teacher, and every student that is not the evaluated one."""
        if not self.students:
            return {}
        before = {f"model{suffix}": each.provenance["student"] for suffix, each in self.students.items() if suffix}
        return {"teacher": self.students[""].provenance["teacher"], **before}

    def scores(self, work: Workload, responses: Sequence[str], decoding: Decoding) -> dict[str, Score]:
        """COMET of translations; tests of programs; closeness to the teacher on the references, and drafting for it."""
        scores: dict[str, Score] = {}
        if self.evalplus is not None and self.evalplus.applies(work):
            scores |= self.evalplus.scores(work, responses)
        if self.comet is not None and self.comet.applies(work):
            scores["comet"] = self.comet.score(work, responses)
        if self.students:
            scores |= self._against_teacher(work, decoding)
        return scores

    def _against_teacher(self, work: Workload, decoding: Decoding) -> dict[str, Score]:
        from skd.evaluate.drafter import Drafting, drafter, drafter_speed
        from skd.evaluate.teacher import fidelity

        pair = self.students[""]
        prompts = encoded(pair, work, decoding, references=True)
        drafted = prompts.select(range(min(DRAFTED_ITEMS, len(prompts))))
        drafting = Drafting(
            work.max_new_tokens,
            work.stop_strings,
            decoding.temperature,
            decoding.seed,
            self.drafters.block,
            decoding.slots,
        )
        scores = fidelity(pair, prompts)
        for suffix, student in self.students.items():
            scores |= {name + suffix: score for name, score in drafter(student, drafted, drafting).items()}
        if self.drafters.timed:
            scores |= drafter_speed(
                {f"draft_speedup{suffix}": student for suffix, student in self.students.items()}, drafted, drafting
            )
        return scores

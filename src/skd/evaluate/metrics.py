"""What is measured: each response on its own, then scores over all of them, every one with an interval.

A metric first judges single responses; what it finds stands in the samples file. The scores are computed from these
findings and the texts, so that a run which was stopped loses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from skd.data.file_tasks import FileTask, ItemScore
from skd.data.rows import Row
from skd.errors import ConfigError, Problem
from skd.evaluate.answers import last_boxed, last_number, number_after_marks, stated_answer
from skd.evaluate.code import Code
from skd.evaluate.corpus import Rouge, Translation
from skd.evaluate.grader import Grader
from skd.evaluate.scores import Finding, Score, mean_score, share_score

__all__ = ["Exact", "ItemMean", "MathMatch", "Metric", "NumberMatch", "metric_of"]


class Metric(Protocol):
    """Judges responses and sums them up."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages whose versions belong to the result."""
        ...

    def judge(self, row: Row, response: str) -> Finding:
        """What one response is worth: plain JSON values; ``correct`` where it is right or wrong."""
        ...

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        """The scores by name, the most important one first."""
        ...

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        """How often what was found, for the result; empty where there is nothing to count."""
        ...


@dataclass(frozen=True)
class Exact:
    """Right or wrong by a rule; by default the reference's text without the space around it."""

    rule: Callable[[Row, str], bool] = lambda row, response: response.strip() == (row.response or "").strip()
    packages: tuple[str, ...] = ()

    def judge(self, row: Row, response: str) -> Finding:
        return {"correct": self.rule(row, response)}

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        return {"exact_match": share_score([bool(finding["correct"]) for finding in findings])}

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        return {}


@dataclass(frozen=True)
class NumberMatch:
    """The number after ``####``. The last number of the text, where there are no marks, counts apart."""

    packages: tuple[str, ...] = ()

    def judge(self, row: Row, response: str) -> Finding:
        reference, grader = row.response or "", Grader()
        wanted = number_after_marks(reference) or stated_answer(reference) or ""
        marked = number_after_marks(response)
        answer = marked if marked is not None else last_number(response)
        right = answer is not None and grader.grade(answer, wanted).name == "equal"
        return {"correct": right and marked is not None, "answer": answer, "marked": marked is not None, "found": right}

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        return {
            "exact_match": share_score([bool(finding["correct"]) for finding in findings]),
            "exact_match_or_last_number": share_score([bool(finding["found"]) for finding in findings]),
        }

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        unmarked = [finding for finding in findings if not finding["marked"]]
        return {"without_marks": len(unmarked), "no_answer": sum(finding["answer"] is None for finding in unmarked)}


@dataclass(frozen=True)
class MathMatch:
    r"""Equivalence of the last balanced ``\boxed{}`` with the reference's."""

    grader: Grader
    packages: tuple[str, ...] = ("math-verify",)

    def judge(self, row: Row, response: str) -> Finding:
        answer = last_boxed(response)
        verdict = self.grader.grade(answer, stated_answer(row.response or "") or "")
        return {"correct": verdict.name == "equal", "answer": answer, "verdict": verdict.name, "tier": verdict.tier}

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        return {"accuracy": share_score([bool(finding["correct"]) for finding in findings])}

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        undecided = sum(finding["tier"] == "undecided" for finding in findings)
        return {**Counter(str(finding["verdict"]) for finding in findings), "undecided_without_math_verify": undecided}


@dataclass(frozen=True)
class ItemMean:
    """A measure of the user's own, averaged."""

    score: ItemScore
    packages: tuple[str, ...] = ()

    def judge(self, row: Row, response: str) -> Finding:
        return {"score": float(self.score(response, row.response or ""))}

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        return {"score": mean_score([float(finding["score"]) for finding in findings])}

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        return {}


_BUILDERS: Mapping[str, Callable[[FileTask, Grader], Metric]] = {
    "exact": lambda task, grader: Exact(),
    "number": lambda task, grader: NumberMatch(),
    "math": lambda task, grader: MathMatch(grader),
    "rouge": lambda task, grader: Rouge(),
    "translation": lambda task, grader: Translation(),
    "code": lambda task, grader: Code(),
    "completion": lambda task, grader: Code(completes=True),
}
_NEEDED = {"rouge": ("rouge_score", "rouge-score"), "translation": ("sacrebleu", "sacrebleu")}
"""Metric -> module and package that it cannot do without."""


def metric_of(task: FileTask, grader: Grader) -> Metric:
    """The metric of a task. Raises ConfigError (SKD-E15) when the package that computes it is missing."""
    if not isinstance(task.metric, str):
        return ItemMean(task.metric)
    module, package = _NEEDED.get(task.metric, ("", ""))
    if module and find_spec(module) is None:
        found = f"the metric of {task.name} is computed by {package}, which is not installed"
        raise ConfigError(Problem("SKD-E15", f"task {task.name}", found, "install it: pip install 'skd[eval]'"))
    return _BUILDERS[task.metric](task, grader)

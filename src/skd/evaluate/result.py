"""Scores of a model on one task, with what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skd.evaluate.scores import Finding, Score, item_score
from skd.text import shortened, visible

__all__ = ["EvaluationResult"]


@dataclass(frozen=True)
class EvaluationResult:
    """Scores on n items, with what they rest on."""

    task: str
    scores: Mapping[str, Score]
    """By name, the most important one first."""
    responses: tuple[str, ...]
    findings: tuple[Finding, ...]
    """What the metric found in each response, in the order of the task's rows."""
    seconds: float
    """Wall time of the generation in this process, loading not counted."""
    provenance: dict[str, Any]
    """model, decoding, data (with fingerprint), versions, commit."""

    @property
    def main(self) -> Score:
        """The score that the task is known by."""
        return next(iter(self.scores.values()))

    @property
    def score(self) -> float:
        """The main score."""
        return self.main.value

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return self.main.interval_95

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.responses)

    @property
    def correct(self) -> tuple[bool, ...]:
        """Per item: two results with one ``data`` fingerprint can be paired. Empty for graded metrics."""
        return tuple(bool(finding["correct"]) for finding in self.findings if "correct" in finding)

    @property
    def values(self) -> tuple[float, ...]:
        """Score of each item, for paired comparisons. A corpus score such as BLEU is not their mean."""
        return tuple(item_score(finding) for finding in self.findings)

    def line(self) -> str:
        """The main score as one line of a table, safe for a terminal."""
        model = visible(shortened(str(self.provenance["model"].get("path", "")), 80))
        return f"{visible(self.task):<14} n {self.n:>6,}   {self.main.text()}   {self.seconds:6.1f} s   {model}"

    def lines(self) -> list[str]:
        """All scores, the main one first; further ones by name."""
        return [self.line(), *(f"  {name:<24} {score.text()}" for name, score in list(self.scores.items())[1:])]

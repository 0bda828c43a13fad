"""From finished cells to tables: scores, costs, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

import numpy as np

from skd.compare.run import Comparison, Finished
from skd.compare.significance import Floats, crossed_interval, flip_p, holm, paired_bootstrap
from skd.evaluate.statistics import wilson_interval

__all__ = ["Contrast", "Row", "Table", "tables"]

LEVEL = 0.05
Interval = tuple[float, float]


@dataclass(frozen=True)
class Contrast:
    """Method a against method b on the same items; differences are a - b, as fractions of the items."""

    a: str
    b: str
    difference: float
    over_items: Interval
    """Paired bootstrap: other items, these students."""
    over_seeds: Interval | None
    """Other items and other seeds; None with a single seed."""
    by_seed: tuple[float, ...]
    p: float
    """McNemar's exact test, an item's seeds together."""
    p_holm: float
    """The same, corrected for all contrasts that were asked together."""

    @property
    def verdict(self) -> Literal["a", "b", "tie"]:
        """Which one wins: below 5 % after correction, and the wider interval leaves out 0; everything else is a tie."""
        low, high = self.over_seeds or self.over_items
        if self.p_holm >= LEVEL or low <= 0.0 <= high:
            return "tie"
        return "a" if self.difference > 0 else "b"


@dataclass(frozen=True)
class Row:
    """A method in a table; costs are means over the seeds."""

    method: str
    score: float
    interval: Interval
    """Bootstrap over items, of the mean over the seeds; Wilson's where all items are alike."""
    by_seed: tuple[float, ...]
    steps: float
    tokens: float
    seconds: float
    cpu_seconds: float
    teacher_flops: float | None
    against_reference: Contrast | None
    """None for the reference itself."""
    rank: Literal["best", "tie", "behind"]
    """Against the best method, over all pairs."""


@dataclass(frozen=True)
class Table:
    """One budget, setting and task."""

    budget: str
    setting: str
    task: str
    n: int
    seeds: tuple[int, ...]
    reference: str
    rows: tuple[Row, ...]
    """Best first."""
    models: Mapping[str, float]
    """Scores of the teacher and of the student at the start."""
    pairs: tuple[Contrast, ...]
    """All pairs of methods."""

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        contrasts = [{**asdict(pair), "verdict": pair.verdict} for pair in self.pairs]
        rows = [
            {**asdict(row), "verdict": row.against_reference.verdict if row.against_reference else None}
            for row in self.rows
        ]
        return {**asdict(self), "rows": rows, "pairs": contrasts}


def tables(comparison: Comparison) -> list[Table]:
    """The tables of all budgets whose cells are finished, settings and tasks in the plan's order."""
    return [
        table
        for budget in comparison.cells
        for setting in comparison.plan.config.settings
        for number, items in enumerate(comparison.plan.items(setting))
        for table in _table(comparison, budget, setting, number, items.task)
    ]


def _table(comparison: Comparison, budget: str, setting: str, number: int, task: str) -> Iterator[Table]:
    config, by_key = comparison.plan.config, comparison.cells[budget]
    cells = {m: by_key[setting, m] for m in config.methods if len(by_key.get((setting, m), ())) == len(config.seeds)}
    if len(cells) < 2:
        return
    scores: dict[str, Floats] = {m: np.array([one.scores(number) for one in mine]) for m, mine in cells.items()}
    pairs = _contrasts(scores, list(combinations(scores, 2)))
    to_reference = [(m, config.reference) for m in scores if m != config.reference and config.reference in scores]
    against = {contrast.a: contrast for contrast in _contrasts(scores, to_reference)}
    best = max(scores, key=lambda m: float(scores[m].mean()))
    rows = [_row(m, cells[m], scores[m], against.get(m), _rank(m, best, pairs)) for m in scores]
    roles = sorted((role for named, role in comparison.models if named == setting), key=lambda role: role == "start")
    models = {role: fmean(comparison.models[setting, role].scores(number)) for role in roles}
    yield Table(
        budget=budget,
        setting=setting,
        task=task,
        n=scores[best].shape[1],
        seeds=tuple(config.seeds),
        reference=config.reference,
        rows=tuple(sorted(rows, key=lambda row: -row.score)),
        models=models,
        pairs=tuple(pairs),
    )


def _interval(scores: Floats) -> Interval:
    """By Wilson where all items are 0 or all are 1: redrawn, they would always be the same."""
    mean, n = float(scores.mean()), scores.shape[1]
    return wilson_interval(int(mean) * n, n) if mean in (0.0, 1.0) else paired_bootstrap(scores)


def _contrasts(scores: Mapping[str, Floats], pairs: Sequence[tuple[str, str]]) -> list[Contrast]:
    differences = [scores[a] - scores[b] for a, b in pairs]
    ps = [flip_p(difference) for difference in differences]
    return [
        Contrast(
            a=a,
            b=b,
            difference=float(difference.mean()),
            over_items=paired_bootstrap(difference),
            over_seeds=crossed_interval(difference),
            by_seed=tuple(map(float, difference.mean(axis=1))),
            p=p,
            p_holm=corrected,
        )
        for (a, b), difference, p, corrected in zip(pairs, differences, ps, holm(ps), strict=True)
    ]


def _rank(method: str, best: str, pairs: Sequence[Contrast]) -> Literal["best", "tie", "behind"]:
    if method == best:
        return "best"
    contrast = next(pair for pair in pairs if {pair.a, pair.b} == {method, best})
    return "tie" if contrast.verdict == "tie" else "behind"


def _row(
    method: str,
    cells: Sequence[Finished],
    scores: Floats,
    against: Contrast | None,
    rank: Literal["best", "tie", "behind"],
) -> Row:
    flops = [one.record["teacher_flops"] for one in cells]
    return Row(
        method=method,
        score=float(scores.mean()),
        interval=_interval(scores),
        by_seed=tuple(map(float, scores.mean(axis=1))),
        steps=fmean(float(one.record["steps"]) for one in cells),
        tokens=fmean(float(one.record["tokens"]) for one in cells),
        seconds=fmean(float(one.record["seconds"]) for one in cells),
        cpu_seconds=fmean(float(one.record["cpu_seconds"]) for one in cells),
        teacher_flops=None if None in flops else fmean(flops),
        against_reference=against,
        rank=rank,
    )

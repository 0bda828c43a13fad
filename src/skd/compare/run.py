"""The whole comparison, phase by phase: models, tuning, equal steps, equal cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from skd.check import check
from skd.compare.cells import Cell, cell_job, item_scores, model_job
from skd.compare.jobs import Job, Record, read_record, refuse_stale, run_jobs, state_of
from skd.compare.plan import Plan
from skd.compare.schema import BudgetConfig, Changes
from skd.compare.stages import Stages
from skd.errors import SkdError, joined
from skd.text import write_text

__all__ = ["Comparison", "Finished"]

Say = Callable[[str], None]
Key = tuple[str, str]
"""(setting, method)"""


@dataclass(frozen=True)
class Finished:
    """A finished job with its record."""

    job: Job
    record: Record

    def scores(self, number: int) -> list[float]:
        """Of each item of the setting's items ``number``."""
        return item_scores(self.job, [], number)


Done = Callable[[Sequence[Job]], Iterator[Finished]]
"""Jobs in, those that are finished out."""


@dataclass
class Comparison:
    """A plan on its way; ``run`` and ``survey`` walk through the same phases."""

    plan: Plan
    output: Path
    models: dict[Key, Finished] = field(default_factory=dict)
    """(setting, teacher or start)"""
    tuned: dict[Key, Changes] = field(default_factory=dict)
    cells: dict[str, dict[Key, list[Finished]]] = field(default_factory=dict)
    """By budget: the cells of each method, one for each seed."""

    @property
    def stages(self) -> Stages:
        return Stages(self.plan, self.output)

    @property
    def keys(self) -> list[Key]:
        """Every method in every setting."""
        return [(setting, method) for setting in self.plan.config.settings for method in self.plan.config.methods]

    def run(self, *, redo: bool, say: Say) -> None:
        """Do what is not done; see ``run_jobs`` for what it raises. cells.jsonl grows with every cell.

        Raises what ``skd.check.check`` finds wrong with the data or the models of any setting, before the first cell;
        and CheckpointError (SKD-K14) for all that is stale, of whatever phase.
        """
        if not redo:
            refuse_stale([job for job, _ in Comparison(self.plan, self.output).survey()])
        self._require_usable()
        lines: dict[str, None] = {}

        def do(jobs: Sequence[Job]) -> Iterator[Finished]:
            for job, record in run_jobs(jobs, redo=redo, say=say):
                if "seed" in record:
                    lines[json.dumps(record)] = None
                    write_text(self.output / "cells.jsonl", "".join(f"{line}\n" for line in lines))
                yield Finished(job, record)

        self._walk(do, say)

    def survey(self) -> list[tuple[Job, str]]:
        """Every job that can be known of now with its state; those that wait for others' results are left out."""
        seen: list[tuple[Job, str]] = []

        def look(jobs: Sequence[Job]) -> Iterator[Finished]:
            for job in jobs:
                state = state_of(job)
                seen.append((job, str(state)))
                if state.kind == "finished":
                    yield Finished(job, read_record(job) or {})

        self._walk(look, lambda text: None)
        return seen

    def _walk(self, done: Done, say: Say) -> None:
        """Each phase may need what the phases before it found; the walk ends where that is missing."""
        list(done(list(self.stages.jobs())))
        for finished in done(list(self._model_jobs())):
            self.models[finished.record["setting"], finished.record["method"]] = finished
        if not self._tune(done, say):
            return
        wanted = [Cell("steps", *key, seed, self.tuned.get(key, {})) for key in self.keys for seed in self._seeds]
        if not self._finish("steps", wanted, done):
            return
        for budget in self.plan.config.budgets:
            self._finish(budget.kind, list(self._equal(budget)), done)

    def _require_usable(self) -> None:
        """What is wrong with a setting's data or models is said before anything is spent on another one."""
        errors: list[SkdError] = []
        for setting in self.plan.config.settings:
            config = self.plan.cell(setting, self.plan.config.reference, ((), {"output": str(self.output / "cells")}))
            made = any(self.stages.identities(config).values())
            try:
                check(config, models=not made).require()
            except SkdError as error:
                errors.append(error)
        if errors:
            raise joined(errors)

    @property
    def _seeds(self) -> Sequence[int]:
        return self.plan.config.seeds

    def _model_jobs(self) -> Iterator[Job]:
        for setting in self.plan.config.settings:
            config = self.plan.cell(setting, self.plan.config.reference)
            for part, model in config.models.items():
                role = "start" if part == "student" else part
                yield model_job(self.stages, setting, role, model, self.plan.items(setting))

    def _tune(self, done: Done, say: Say) -> bool:
        """Try every trial for every method in every setting, and keep the best; whether all are known."""
        tune = self.plan.config.tune
        if tune is None:
            return True
        cells = [
            Cell(f"trial-{number}", *key, tune.seed, dict(trial))
            for key in self.keys
            for number, trial in enumerate(tune.trials)
        ]
        finished = list(done([cell_job(self.plan, self.stages, cell, [tune.items]) for cell in cells]))
        if len(finished) < len(cells):
            return False
        for key in self.keys:
            mine = [one for one in finished if (one.record["setting"], one.record["method"]) == key]
            best = max(mine, key=lambda one: fmean(one.scores(0)))  # the first of equal ones
            self.tuned[key] = best.record["changes"]
            say(f"tuned {' / '.join(key)}: {_changes(self.tuned[key])} of {len(mine)} trials")
        return True

    def _finish(self, budget: str, cells: list[Cell], done: Done) -> bool:
        """Do the cells of a budget; whether all are finished."""
        jobs = [cell_job(self.plan, self.stages, cell, self.plan.items(cell.setting)) for cell in cells]
        by_key = self.cells.setdefault(budget, {})
        for finished in done(jobs):
            by_key.setdefault((finished.record["setting"], finished.record["method"]), []).append(finished)
        return sum(map(len, by_key.values())) >= len(cells)

    def _equal(self, budget: BudgetConfig) -> Iterator[Cell]:
        """Cells with as many steps as cost what the budget says. Methods that cost that already keep their cells."""
        for setting, method in self.keys:
            if budget.methods is not None and method not in (*budget.methods, budget.like):
                continue
            mine = self.cells["steps"][setting, method]
            goal = budget.amount or self._cost(budget, self.cells["steps"][setting, str(budget.like)])
            cost = self._cost(budget, mine)
            if cost == 0.0 or goal == 0.0:
                continue
            if abs(goal / cost - 1) <= 0.1:
                self.cells.setdefault(budget.kind, {})[setting, method] = mine
                continue
            steps = max(1, round(float(mine[0].record["steps"]) * goal / cost))
            for seed in self._seeds:
                changes = {**self.tuned.get((setting, method), {}), "train.max_steps": steps}
                yield Cell(budget.kind, setting, method, seed, changes)

    @staticmethod
    def _cost(budget: BudgetConfig, cells: Sequence[Finished]) -> float:
        return fmean(float(one.record[budget.kind] or 0.0) for one in cells)


def _changes(changes: Mapping[str, object]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in changes.items())

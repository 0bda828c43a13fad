"""The whole story on this machine: measure teacher and student, train by four methods, measure again, show it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from skd.config import METHODS as BUNDLES
from skd.config import RunConfig, config_of
from skd.data.rows import Split
from skd.data.tasks import TASKS
from skd.errors import Problem, ResourceError
from skd.evaluate.run import EvaluationResult, evaluate
from skd.evaluate.statistics import paired_difference
from skd.models import Pair
from skd.report.quickstart import MethodRow, QuickstartPage, write_quickstart
from skd.text import write_text
from skd.train import train
from skd.versions import versions

__all__ = ["PLANS", "Plan", "run"]

NUM_TEST = 1000
NUM_CURVE = 200
TEST_SEED, CURVE_SEED = 20, 21

LABELS = {
    "teacher": "teacher",
    "start": "student at start",
    "skd": "SKD",
    "on_policy": "on-policy KD",
    "supervised_kd": "supervised KD",
    "sft": "SFT (control)",
}
METHODS = ("skd", "on_policy", "supervised_kd", "sft")


@dataclass(frozen=True)
class Plan:
    """What every method of a quickstart shares: prompts, steps and rates; and the gate of SKD."""

    num_prompts: int
    steps: int
    lr: float
    k: int
    student_temperature: float
    batch_size: int = 64
    max_new_tokens: int = 40


PLANS = {
    "number_words": Plan(num_prompts=100, steps=150, lr=2e-3, k=25, student_temperature=1.5),
    "dialogue": Plan(num_prompts=300, steps=100, lr=2e-3, k=5, student_temperature=1.0, batch_size=48),
}


@dataclass(frozen=True)
class Trained:
    """One method's run and its student, measured."""

    result: EvaluationResult
    steps: Sequence[Mapping[str, Any]]
    """The run's metrics, one record per step."""
    validations: Sequence[Mapping[str, Any]]
    """One record per validation."""
    tokens: Sequence[Mapping[str, Any]]
    """The token view of every validation, first to last."""

    @property
    def seconds(self) -> float:
        """Wall time of the optimiser steps: responses, evidence and update; no loading, validation or export."""
        return float(sum(record["seconds"] for record in self.steps))

    @property
    def replaced_share(self) -> float:
        """Teacher-written tokens / response tokens over the whole run."""
        tokens = sum(record["tokens"] for record in self.steps)
        return float(sum((record["replaced_share"] or 0.0) * record["tokens"] for record in self.steps) / tokens)


def run(out: str | Path = "runs/quickstart", task: str = "number_words") -> Path:
    """Run the quickstart of a built-in task and write ``results.json`` and ``index.html`` to ``out``.

    Every number is measured in this run: exact match of greedy responses on 1,000 held-out items, one seed. Returns
    the path of the page.

    Results of an earlier quickstart in ``out`` are moved aside. Raises ResourceError when it cannot be written to.
    """
    _make_ready(Path(out))
    started, out, plan, console = time.perf_counter(), Path(out), PLANS[task], Console()
    rows = TASKS[task].rows("test", 1, TEST_SEED)
    console.print(
        f"Task {task}: “{rows[0].prompt}” → “{rows[0].response}”. {NUM_TEST:,} held-out test items, one seed."
    )
    before = {
        name: _measure(f"builtin:{task}/{model}", task)
        for name, model in (("teacher", "teacher"), ("start", "student"))
    }
    for name, measured in before.items():
        console.print(f"{LABELS[name]}: {100 * measured.score:.1f} %")
    trained = {}
    for method in METHODS:
        console.print(f"\n{LABELS[method]}: {plan.steps} steps of {plan.batch_size} from {plan.num_prompts} prompts")
        trained[method] = _trained(config_for(task, plan, method, out / method), task)
    table_rows = _table_rows(before, trained, plan)
    console.print(_table(table_rows))
    share = trained["skd"].replaced_share
    console.print(f"SKD's gate (top {plan.k}) let the teacher replace {100 * share:.1f} % of the response tokens.")
    seconds = time.perf_counter() - started
    _write_results(out, seconds, table_rows, share)
    page = write_quickstart(_page(task, plan, table_rows, trained, seconds), out / "index.html")
    console.print(f"\n{seconds:.0f} seconds in all. Numbers: {out / 'results.json'}   Page: {page}", soft_wrap=True)
    console.print(_next_steps(task, out), markup=False, highlight=False, soft_wrap=True)
    return page


def _make_ready(out: Path) -> None:
    """Find out before the first measurement, not after it, whether the results have a place.

    What an earlier quickstart left there is kept, in ``earlier-N``.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        left = [out / name for name in (*METHODS, "results.json", "index.html") if (out / name).exists()]
        if left:
            aside = next(out / f"earlier-{n}" for n in count(1) if not (out / f"earlier-{n}").exists())
            aside.mkdir()
            for path in left:
                path.rename(aside / path.name)
    except OSError as error:
        found = f"cannot be written to ({error.strerror})"
        raise ResourceError(Problem("SKD-H09", str(out), found, "name another directory with --out")) from error


def config_for(task: str, plan: Plan, method: str, output: Path) -> RunConfig:
    """The configuration of one method's run: all share everything but the method."""
    skd = {"policy": {"kind": "interleaved", "gate": {"kind": "top_k", "k": plan.k}, "block": 5}}
    sampling = {
        "max_new_tokens": plan.max_new_tokens,
        "student": {"temperature": plan.student_temperature, "top_p": 1.0},
        "teacher": {"temperature": 1.0, "top_p": 1.0},
    }
    return config_of(
        {
            "method": method,
            "teacher": f"builtin:{task}/teacher",
            "student": f"builtin:{task}/student",
            "data": {
                "train": {"kind": "task", "name": task, "split": "train", "size": plan.num_prompts},
                "validation": {"kind": "task", "name": task, "split": "validation", "size": 64},
            },
            "train": {
                "lr": plan.lr,
                "betas": [0.9, 0.98],
                "batch_size": plan.batch_size,
                "max_steps": plan.steps,
                "validate_every": 30,
                "save_every": None,
                "trackers": [],
                "samples_every": None,
            },
            "output": str(output),
            **({} if BUNDLES[method].policy["kind"] == "data_set" else {"sampling": sampling}),
            **(skd if method == "skd" else {}),
        }
    )


def _measure(model: Pair | str | Path, task: str, size: int = NUM_TEST, split: Split = "test") -> EvaluationResult:
    seed = TEST_SEED if split == "test" else CURVE_SEED
    return evaluate(model, task, size=size, split=split, seed=seed)


def _trained(config: RunConfig, task: str) -> Trained:
    def curve(pair: Pair) -> dict[str, float]:
        return {"score": _measure(pair, task, NUM_CURVE, "validation").score}

    result = train(config, resume="never", measure=curve)
    records = [json.loads(line) for line in result.metrics.read_text(encoding="utf-8").splitlines()]
    validations = [{"step": r["step"], **r["validation"]} for r in records if "validation" in r]
    views = [result.run_dir / "tokens" / f"step-{one['step']}.json" for one in validations]
    return Trained(
        result=_measure(result.student_dir, task),
        steps=[record for record in records if "validation" not in record],
        validations=validations,
        tokens=[json.loads(view.read_text(encoding="utf-8")) for view in views],
    )


def _table_rows(before: Mapping[str, EvaluationResult], trained: Mapping[str, Trained], plan: Plan) -> list[MethodRow]:
    rows = [
        MethodRow(name, LABELS[name], result.score, *result.interval, seconds=None) for name, result in before.items()
    ]
    for method, one in trained.items():
        difference, low, high = paired_difference(before["start"].correct, one.result.correct)
        rows.append(
            MethodRow(
                name=method,
                label=LABELS[method],
                score=one.result.score,
                low=one.result.interval[0],
                high=one.result.interval[1],
                difference=difference,
                difference_low=low,
                difference_high=high,
                seconds=one.seconds,
                steps=plan.steps,
            )
        )
    return rows


def _table(rows: Sequence[MethodRow]) -> Table:
    table = Table(title=f"Exact match on {NUM_TEST:,} held-out items, one seed", box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("", "score %", "95 % interval", "gain", "paired 95 %", "seconds"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in rows:
        cells = [row.label, f"{100 * row.score:.1f}", f"{100 * row.low:.1f} to {100 * row.high:.1f}"]
        if row.difference is not None and row.difference_low is not None and row.difference_high is not None:
            interval = f"{100 * row.difference_low:+.1f} to {100 * row.difference_high:+.1f}"
            cells += [f"{100 * row.difference:+.1f}", interval, f"{row.seconds:.1f}"]
        table.add_row(*cells)
    return table


def _write_results(out: Path, seconds: float, rows: Sequence[MethodRow], replaced_share: float) -> None:
    results = {
        "seconds": seconds,
        "n_test": NUM_TEST,
        "scores": {row.name: row.score for row in rows},
        "replaced_share": replaced_share,
        "intervals_95": {row.name: [row.low, row.high] for row in rows},
        "differences": {
            row.name: [row.difference, row.difference_low, row.difference_high]
            for row in rows
            if row.difference is not None
        },
        "seconds_by_method": {row.name: row.seconds for row in rows if row.seconds is not None},
        "versions": versions(),
    }
    write_text(out / "results.json", json.dumps(results, indent=2) + "\n")


def _page(
    task: str, plan: Plan, rows: Sequence[MethodRow], trained: Mapping[str, Trained], seconds: float
) -> QuickstartPage:
    example = TASKS[task].rows("test", 1, TEST_SEED)[0]
    return QuickstartPage(
        rows=rows,
        curves={LABELS[m]: [(v["step"], v["score"]) for v in one.validations] for m, one in trained.items()},
        loss_curves={LABELS[m]: [(s["step"], s["loss"]) for s in one.steps] for m, one in trained.items()},
        acceptance_curves={LABELS["skd"]: [(s["step"], s["acceptance_rate"]) for s in trained["skd"].steps]},
        tokens=trained["skd"].tokens,
        task_name=task,
        task_example=(example.prompt, example.response or ""),
        n_test=NUM_TEST,
        command=f"skd quickstart --task {task}",
        versions=versions(),
        notes=[
            "One seed; every number was measured in this run. Differences between trained methods that are smaller "
            "than their intervals are ties.",
            f"All four methods took {plan.steps} steps of {plan.batch_size} responses to the same {plan.num_prompts} "
            f"prompts from the same student, at learning rate {plan.lr:g}. Seconds are wall time of the steps, "
            "without loading and validation.",
            f"SKD: top-{plan.k} gate, which let the teacher replace {100 * trained['skd'].replaced_share:.1f} % of the "
            f"tokens; student temperature {plan.student_temperature:g}, teacher temperature 1.",
            f"Learning curves: {NUM_CURVE} validation items. The whole run took {seconds:.0f} seconds.",
        ],
    )


def _next_steps(task: str, out: Path) -> str:
    return f"""
What to try next:
  skd generate --teacher builtin:{task}/teacher --student {out / "skd" / "student"} "{_a_prompt(task)}" --k 3
  skd report {out / "skd"}
  skd train recipes/number_words/skd.yaml policy.gate.k=5"""


def _a_prompt(task: str) -> str:
    return TASKS[task].rows("test", 1, TEST_SEED)[0].prompt

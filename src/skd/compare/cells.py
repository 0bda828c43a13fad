"""One cell: a method trained by one seed in one setting, and measured. And the models that cells start from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from skd.check import check
from skd.compare.costs import costs_of, curve_of
from skd.compare.jobs import NO_MATTER, Job, Record, digest
from skd.compare.plan import Plan
from skd.compare.schema import Changes, ItemsConfig
from skd.compare.stages import Stages
from skd.config import ModelConfig, RunConfig, config_digest, config_of
from skd.evaluate.run import EvaluationResult, evaluate
from skd.models import Pair
from skd.train import train
from skd.train.directory import latest_whole
from skd.versions import commit, versions

__all__ = ["Cell", "cell_job", "item_scores", "model_job"]


@dataclass(frozen=True)
class Cell:
    """Which one it is."""

    budget: str
    """steps, seconds, teacher_flops; trial-N while tuning."""
    setting: str
    method: str
    seed: int
    changes: Changes = field(default_factory=dict)
    """On top of the plan: what tuning chose, the steps of a budget."""

    @property
    def name(self) -> str:
        return f"{self.budget} / {self.setting} / {self.method} / seed {self.seed}"

    @property
    def place(self) -> Path:
        return Path("cells") / self.budget / self.setting / self.method / f"seed-{self.seed}"


def cell_job(plan: Plan, stages: Stages, cell: Cell, items: Sequence[ItemsConfig]) -> Job:
    """The job of a cell, measured on ``items``. Raises ConfigError when its config is none."""
    config = plan.cell(cell.setting, cell.method, ((), {**cell.changes, "train.seed": cell.seed}))
    curve = None if cell.budget.startswith("trial") else plan.config.curve
    identity = {
        "config": config.model_dump(mode="json", exclude=NO_MATTER),
        "items": _dumped(items),
        "curve": None if curve is None else curve.model_dump(mode="json", exclude_defaults=True),
        "made": stages.identities(config),
    }
    here = stages.resolved(config)
    work = partial(_worked, cell=cell, config=here, items=items, curve=curve, identity=identity)
    return Job(cell.name, stages.output / cell.place, identity, work)


def model_job(stages: Stages, setting: str, role: str, model: ModelConfig, items: Sequence[ItemsConfig]) -> Job:
    """Measuring a setting's teacher, or its student at the start."""
    identity = {
        "model": model.model_dump(mode="json", exclude_defaults=True),
        "items": _dumped(items),
        "made": {role: stages.identity(model.path)},
    }
    found = stages.path(model.path)

    def work(directory: Path) -> Record:
        results = _measured(found, items, directory)
        return {"budget": "none", "setting": setting, "method": role, **_evaluation(results), **_provenance(identity)}

    return Job(f"{setting} / {role}", stages.output / "models" / setting / quote(role, safe=""), identity, work)


def item_scores(job: Job, items: Sequence[ItemsConfig], number: int) -> list[float]:
    """The score of each item of ``items[number]``, in order, of a finished job."""
    lines = _samples(job.directory, number).read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["score"]) for line in lines]


def _samples(directory: Path, number: int) -> Path:
    return directory / "items" / f"{number}.jsonl"


def _dumped(items: Sequence[ItemsConfig]) -> dict[str, dict[str, Any]]:
    # By number, so that what has changed is named by its key; without defaults, since later versions may have more.
    return {str(number): one.model_dump(mode="json", exclude_defaults=True) for number, one in enumerate(items)}


def _worked(
    directory: Path,
    *,
    cell: Cell,
    config: RunConfig,
    items: Sequence[ItemsConfig],
    curve: ItemsConfig | None,
    identity: Mapping[str, Any],
) -> Record:
    config = config_of(config, {"output": str(directory / "run")})
    found = check(config)
    found.require()

    def measure(pair: Pair) -> dict[str, float]:
        return {} if curve is None else {"score": _evaluated(pair, curve, None).score}

    result = train(config, checked=found, measure=measure, display=False)
    ids: Any = found.train
    lengths = {sample: len(prompt) for sample, prompt in zip(ids.sample_ids, ids.ids, strict=True)}
    results = _measured(str(result.student_dir), items, directory)
    return {
        **asdict(cell),
        **_evaluation(results),
        **asdict(costs_of(result.run_dir, config, lengths)),
        "curve": [asdict(point) for point in curve_of(result.run_dir)],
        **_provenance(identity),
        "config_digest": config_digest(config),
        "models": _models(result.run_dir),
    }


def _measured(model: str, items: Sequence[ItemsConfig], directory: Path) -> list[EvaluationResult]:
    return [_evaluated(model, one, _samples(directory, number)) for number, one in enumerate(items)]


def _evaluated(model: Pair | str, items: ItemsConfig, out: Path | None) -> EvaluationResult:
    return evaluate(
        model,
        items.task,
        size=items.size,
        split=items.split,
        out=out,
        max_new_tokens=items.max_new_tokens,
        data=items.data,
        seed=items.seed,
    )


def _evaluation(results: Sequence[EvaluationResult]) -> Record:
    return {
        "scores": {result.task: {name: score.record() for name, score in result.scores.items()} for result in results},
        "items_digests": {result.task: result.provenance["data"]["fingerprint"] for result in results},
    }


def _provenance(identity: Mapping[str, Any]) -> Record:
    return {
        "digest": digest(identity),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _models(run_dir: Path) -> dict[str, Any]:
    """What identifies teacher and starting student of a finished run."""
    checkpoint, _ = latest_whole(run_dir)
    if checkpoint is None:
        return {}
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    return dict(state["provenance"])

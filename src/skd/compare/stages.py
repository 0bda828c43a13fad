"""Models that a plan makes before its cells, each once: random weights, or the student of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from skd.compare.jobs import NO_MATTER, Identity, Job, Record
from skd.compare.plan import STAGE, Plan
from skd.config import RunConfig, config_digest, config_of
from skd.models.fresh import write_fresh
from skd.train import train
from skd.versions import commit, versions

__all__ = ["Stages"]


@dataclass(frozen=True)
class Stages:
    """The stages of a plan, and what ``stage:NAME`` stands for."""

    plan: Plan
    output: Path

    def jobs(self) -> Iterator[Job]:
        """One for each stage, in the plan's order."""
        for name in self.plan.config.stages:
            yield Job(f"stage {name}", self._directory(name), self._identity(name), partial(self._made, name))

    def path(self, model: str) -> str:
        """Where a model is; a stage's directory for ``stage:NAME``."""
        name = model.removeprefix(STAGE)
        if name == model:
            return model
        trained = self.plan.config.stages[name].config is not None
        return str(self._directory(name) / "run" / "student" if trained else self._directory(name) / "model")

    def resolved(self, config: RunConfig) -> RunConfig:
        """A config with directories in place of stages."""
        for key, model in config.models.items():
            config = config.with_model(key, model.model_copy(update={"path": self.path(model.path)}))
        return config_of(config)

    def identity(self, model: str) -> Identity | None:
        """What the stage that a model is was asked for, with the stages below it; None for one from elsewhere.

        Not its digest: a config key that comes with a later version would change that, and nothing in the model.
        """
        return self._identity(model.removeprefix(STAGE)) if model.startswith(STAGE) else None

    def identities(self, config: RunConfig) -> dict[str, Identity | None]:
        """Those of the models that it opens."""
        return {role: self.identity(model.path) for role, model in config.models.items()}

    def _directory(self, name: str) -> Path:
        return self.output / "stages" / name

    def _identity(self, name: str) -> Identity:
        stage = self.plan.config.stages[name]
        if stage.fresh is not None:
            # Left out where it is not asked for: stages made before there was such a key are not stale.
            words = {} if stage.words is None else {"words": stage.words}
            return {"fresh": stage.fresh, "seed": stage.seed, "made": {"fresh": self.identity(stage.fresh)}, **words}
        config = self.plan.stages[name]
        return {"config": config.model_dump(mode="json", exclude=NO_MATTER), "made": self.identities(config)}

    def _made(self, name: str, directory: Path) -> Record:
        stage = self.plan.config.stages[name]
        record: Record = {"stage": name, "versions": versions(), "commit": commit()}
        if stage.fresh is not None:
            write_fresh(self.path(stage.fresh), stage.seed, directory / "model", stage.words)
            return record
        config = config_of(self.resolved(self.plan.stages[name]), {"output": str(directory / "run")})
        result = train(config, display=False)
        return {**record, "steps": result.step, "config_digest": config_digest(config)}

"""From a plan file to checked run configs, or to one error that lists every problem with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skd.compare.problems import STAGE, items_of, plan_problem, unknown_names, unknown_stages, unmeasured_curve
from skd.compare.schema import Changes, ItemsConfig, PlanConfig
from skd.config import RunConfig
from skd.config.credentials import quoted
from skd.config.document import Document, KeyPath, read_document, read_text, read_value
from skd.config.include import read_with_parts
from skd.config.legacy import in_our_terms
from skd.config.load import checked_config
from skd.config.problems import describe, dotted
from skd.errors import ConfigError, Problem
from skd.evaluate.workload import Choice, require_known

__all__ = ["STAGE", "Plan", "load_plan"]


@dataclass(frozen=True)
class Plan:
    """A checked plan."""

    name: str
    config: PlanConfig
    document: Document
    base: Document
    stages: Mapping[str, RunConfig]
    """The run config of each stage that trains."""

    def cell(self, setting: str, method: str, *more: tuple[KeyPath, Changes]) -> RunConfig:
        """The run config of a method in a setting; ``more`` changes go on top. Raises ConfigError."""
        changes = self.config.methods[method]
        base = deepcopy(self.base)
        if "method" in changes and isinstance(base.data, dict):
            # They were the base's method's; under another one they would silently stay.
            for section in ("policy", "objective"):
                base.data.pop(section, None)
        parts = (
            (("settings", setting, "config"), self.config.settings[setting].config),
            (("methods", method), changes),
            *more,
        )
        values: dict[str, object] = {}
        places: dict[str, str] = {}
        for path, part in parts:
            for name, value, where in flat(part, path):
                values.pop(name, None)
                values[name] = value
                places[name] = self.document.place(where)
        return checked_config(base, values, places)

    def items(self, setting: str) -> Sequence[ItemsConfig]:
        """What finished students of a setting are measured on."""
        return self.config.settings[setting].evaluation or self.config.evaluation


def flat(changes: Mapping[str, Any], path: KeyPath, prefix: str = "") -> Iterator[tuple[str, object, KeyPath]]:
    """(dotted key, value, path in the plan) of each change, a section's kind before its other keys."""
    for key in sorted(changes, key=lambda name: name != "kind"):
        value, name = changes[key], f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, (*path, key), f"{name}.")
        else:
            yield name, value, (*path, key)


def load_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read and check a plan with every run config in it. No data and no model is opened.

    overrides: ``"base.train.max_steps=200"``, the value written as YAML; applied in order, before anything is checked.

    Raises ConfigError with all problems of the plan, each with file and line.
    """
    document = read_document(str(path), read_text(Path(path)))
    for text in overrides:
        _override(document, text)
    config = _validated(document)
    if config is None or document.problems:
        raise ConfigError(document.problems)
    problems = [*unknown_names(config, document), *_unknown_tasks(config, document)]
    base = _part(document, ("base",), config.base, Path(path).parent)
    stages = dict(_stages(config, document, Path(path).parent, problems))
    plan = Plan(Path(path).stem, config, document, base, stages)
    _check_cells(plan, problems)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return plan


def _override(document: Document, text: str) -> None:
    """Put a change of the command line into the plan."""
    name, equals, written = text.partition("=")
    path, place = tuple(name.strip().split(".")), f"--override {quoted(name.strip(), 200)[1:-1]}"
    if not (equals and all(path)):
        document.problems.append(Problem("SKD-C05", place, "is no change of the plan", "write section.key=value"))
        return
    section = document.data
    for depth, key in enumerate(path[:-1]):
        inner = section.setdefault(key, {}) if isinstance(section, dict) else None
        if not isinstance(inner, dict):
            found = f"{dotted(path[: depth + 1])} has no keys of its own"
            document.problems.append(Problem("SKD-C05", place, found, "override it as a whole"))
            return
        section = inner
    document.forget(path)
    document.places[path] = place
    section[path[-1]] = read_value(document, written, path, place)


def _unknown_tasks(config: PlanConfig, document: Document) -> Iterator[Problem]:
    for path, items in items_of(config):
        for one in items:
            try:
                require_known([Choice(one.task, one.data, one.split, one.size, one.seed, one.max_new_tokens)])
            except ConfigError as error:
                yield from (replace(problem, place=document.place(path)) for problem in error.problems)


def _stages(
    config: PlanConfig, document: Document, directory: Path, problems: list[Problem]
) -> Iterator[tuple[str, RunConfig]]:
    """The run configs of the stages that train; what is wrong with them goes to ``problems``."""
    known: list[str] = []
    for name, stage in config.stages.items():
        path = ("stages", name)
        before = list(known)
        known.append(name)
        if stage.config is None:
            continue
        try:
            run = checked_config(_part(document, (*path, "config"), stage.config, directory), ())
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        problems.extend(unknown_stages(run, before, document.place(path)))
        yield name, run


def _check_cells(plan: Plan, problems: list[Problem]) -> None:
    """Every method in every setting, with each trial of the tuning."""
    trials = plan.config.tune.trials if plan.config.tune else ()
    extras = [[(("tune", "trials", number), trial)] for number, trial in enumerate(trials)] or [[]]
    for setting in plan.config.settings:
        for method in plan.config.methods:
            for extra in extras:
                try:
                    config = plan.cell(setting, method, *extra)
                except ConfigError as error:
                    problems.extend(error.problems)
                    continue
                place = plan.document.place(("settings", setting))
                problems.extend(unknown_stages(config, plan.config.stages, place))
                problems.extend(unmeasured_curve(plan.config, config, plan.document))


def _part(document: Document, path: KeyPath, value: Any, directory: Path) -> Document:
    """A run config of the plan: the part of the plan that holds it, or the file that it names."""
    if isinstance(value, str):
        return in_our_terms(read_with_parts(directory / value))
    if not isinstance(value, dict):
        found = f"{dotted(path)} is {describe(value, None)}, expected a run config or the path of one"
        raise ConfigError(Problem("SKD-C06", document.place(path), found, "write its keys, or a path"))
    part = Document(document.name, data=deepcopy(value))
    for mine, theirs in ((part.places, document.places), (part.raw, document.raw)):
        mine.update({known[len(path) :]: text for known, text in theirs.items() if known[: len(path)] == path})
    return part


def _validated(document: Document) -> PlanConfig | None:
    if not isinstance(document.data, dict):
        return None
    try:
        return PlanConfig.model_validate(document.data)
    except ValidationError as error:
        found = [plan_problem(detail, document) for detail in error.errors(include_url=False)]
    document.problems.extend(dict.fromkeys(found))
    return None

"""From a plan file to checked run configs, or to one error that lists every problem with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from skd.compare.schema import Changes, ItemsConfig, PlanConfig
from skd.config import RunConfig
from skd.config.document import Document, KeyPath, read_document, read_text
from skd.config.legacy import in_our_terms
from skd.config.load import checked_config
from skd.config.names import nearest
from skd.config.problems import describe, dotted
from skd.errors import ConfigError, Problem

__all__ = ["STAGE", "Plan", "load_plan"]

STAGE = "stage:"
"""Before the name of a stage, where a model is named."""


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


def load_plan(path: str | Path) -> Plan:
    """Read and check a plan with every run config in it. No data and no model is opened.

    Raises ConfigError with all problems of the plan, each with file and line.
    """
    document = read_document(str(path), read_text(Path(path)))
    config = _validated(document)
    if config is None or document.problems:
        raise ConfigError(document.problems)
    problems = list(_contradictions(config, document))
    base = _part(document, ("base",), config.base, Path(path).parent)
    stages: dict[str, RunConfig] = {}
    for name, stage in config.stages.items():
        if stage.config is not None:
            part = _part(document, ("stages", name, "config"), stage.config, Path(path).parent)
            _collect(problems, lambda part=part, name=name: stages.update({name: checked_config(part, ())}))
    plan = Plan(Path(path).stem, config, document, base, stages)
    problems += _problems_of_cells(plan)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return plan


def _problems_of_cells(plan: Plan) -> list[Problem]:
    """Of every method in every setting, with each trial of the tuning."""
    problems: list[Problem] = []
    trials = plan.config.tune.trials if plan.config.tune else ()
    extra = [(("tune", "trials", number), trial) for number, trial in enumerate(trials)]
    for setting in plan.config.settings:
        for method in plan.config.methods:
            for more in [[part] for part in extra] or [[]]:
                _collect(problems, lambda s=setting, m=method, more=more: _known_stages(plan, plan.cell(s, m, *more)))
    return problems


def _collect(problems: list[Problem], step: Any) -> None:
    try:
        step()
    except ConfigError as error:
        problems.extend(error.problems)


def _known_stages(plan: Plan, config: RunConfig) -> None:
    for role in ("teacher", "student"):
        model = getattr(config, role)
        name = model.path.removeprefix(STAGE) if model and model.path.startswith(STAGE) else None
        if name is not None and name not in plan.config.stages:
            known = ", ".join(plan.config.stages) or "none"
            remedy = f"write one of the stages of this plan ({known})"
            raise ConfigError(Problem("SKD-C12", plan.document.name, f"{role} is {STAGE}{name}, no stage", remedy))


def _part(document: Document, path: KeyPath, value: Any, directory: Path) -> Document:
    """A run config of the plan: the part of the plan that holds it, or the file that it names."""
    if isinstance(value, str):
        file = directory / value
        return in_our_terms(read_document(str(file), read_text(file)))
    part = Document(document.name, data=deepcopy(value))
    for mine, theirs in ((part.places, document.places), (part.raw, document.raw)):
        mine.update({known[len(path) :]: text for known, text in theirs.items() if known[: len(path)] == path})
    if not isinstance(value, dict):
        found = f"{dotted(path)} is {describe(value, None)}, expected a run config or the path of one"
        raise ConfigError(Problem("SKD-C06", document.place(path), found, "write its keys, or a path"))
    return part


def _validated(document: Document) -> PlanConfig | None:
    if not isinstance(document.data, dict):
        return None
    try:
        return PlanConfig.model_validate(document.data)
    except ValidationError as error:
        found = [_problem(detail, document) for detail in error.errors(include_url=False, include_input=True)]
    document.problems.extend(dict.fromkeys(found))
    return None


def _problem(detail: Any, document: Document) -> Problem:
    """What the schema of plans refused, in the words of the config's problems."""
    path = tuple(key for key in detail["loc"] if key != "[key]")
    context = detail.get("ctx") or {}
    place, name = document.place(path), dotted(path)
    if detail["type"] == "extra_forbidden":
        keys = _keys(PlanConfig, path[:-1])
        near = nearest(str(path[-1]), keys)
        remedy = f"did you mean {near}?" if near else f"the keys here are {', '.join(keys)}"
        return Problem("SKD-C05", place, f"{name} is an unknown key", remedy)
    if detail["type"] == "missing":
        return Problem("SKD-C17", place, f"{name} is missing", f"add {name}; docs/compare.md shows a plan")
    if detail["type"] == "refused":
        return Problem("SKD-C10", place, f"{dotted((*path, context['key']))} {context['found']}", context["remedy"])
    expected = context.get("expected") or detail["msg"].removeprefix("Input should be ")
    found = f"{name} is {describe(detail['input'], document.raw.get(path))}, expected {expected}"
    return Problem("SKD-C06", place, found, f"correct {name}")


def _keys(section: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys of the section of the plan that stands at ``path``."""
    for key in path:
        field = section.model_fields.get(str(key))
        if field is None:  # a name, or the index of an item
            continue
        inner = list(_sections(field.annotation))
        section = inner[0] if inner else section
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _sections(part)


def _contradictions(config: PlanConfig, document: Document) -> Iterator[Problem]:
    """Names that the plan uses and does not have."""
    used: list[tuple[KeyPath, str]] = [(("reference",), config.reference)]
    for number, budget in enumerate(config.budgets):
        used += [(("budgets", number, "like"), budget.like)] if budget.like else []
        used += [(("budgets", number, "methods", i), name) for i, name in enumerate(budget.methods or ())]
    used += [(("plotted", i), name) for i, name in enumerate(config.plotted or ())]
    for path, name in used:
        if name not in config.methods:
            near = nearest(name, config.methods)
            known = ", ".join(config.methods) or "none"
            remedy = f"did you mean {near}?" if near else f"the methods are {known}"
            yield Problem("SKD-C12", document.place(path), f"{dotted(path)} is {name!r}, no method here", remedy)
    if len(config.methods) < 2:
        yield Problem("SKD-C10", document.place(("methods",)), "fewer than two methods", "add another one")

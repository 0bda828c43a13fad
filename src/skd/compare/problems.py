"""What is wrong with a plan, in the words of the config's own problems: place, found, expected, way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from skd.compare.schema import ItemsConfig, PlanConfig
from skd.config import RunConfig
from skd.config.document import Document, KeyPath, value_at
from skd.config.names import nearest
from skd.config.problems import describe, dotted
from skd.errors import Problem

__all__ = ["STAGE", "items_of", "plan_problem", "unknown_names", "unknown_stages", "unmeasured_curve"]

STAGE = "stage:"
"""Before the name of a stage, where a model is named."""


def plan_problem(detail: Any, document: Document) -> Problem:
    """What the schema of plans refused."""
    path = _path(detail["loc"], document)
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


def _path(loc: Iterable[int | str], document: Document) -> KeyPath:
    """An error's place as the file has it: without pydantic's marks, and the index of a value that stands alone."""
    path: KeyPath = ()
    for key in loc:
        alone = isinstance(key, int) and not isinstance(value_at(path, document.data), list)
        path = path if alone or key == "[key]" else (*path, key)
    return path


def _keys(section: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys of the section of the plan that stands at ``path``."""
    for key in path:
        field = section.model_fields.get(str(key))
        if field is not None:  # otherwise a name, or the index of an item
            section = next(_sections(field.annotation), section)
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _sections(part)


def unknown_names(config: PlanConfig, document: Document) -> Iterator[Problem]:
    """Methods that the plan uses and does not have; too few of them; a task twice among the items."""
    used: list[tuple[KeyPath, str]] = [(("reference",), config.reference)]
    for number, budget in enumerate(config.budgets):
        used += [(("budgets", number, "like"), budget.like)] if budget.like else []
        used += [(("budgets", number, "methods", i), name) for i, name in enumerate(budget.methods or ())]
        if budget.methods and len({*budget.methods, budget.like} - {None}) < 2:
            found = f"budgets.{number} has one method, and nothing to compare it with"
            yield Problem("SKD-C10", document.place(("budgets", number)), found, "add another one to its methods")
    used += [(("plotted", i), name) for i, name in enumerate(config.plotted or ())]
    for path, name in used:
        if name not in config.methods:
            found = f"{dotted(path)} is {name!r}, no method of this plan"
            yield Problem("SKD-C12", document.place(path), found, _one_of(name, config.methods))
    if len(config.methods) < 2:
        yield Problem("SKD-C10", document.place(("methods",)), "methods has fewer than two", "add another one")
    kinds = [budget.kind for budget in config.budgets]
    if len(set(kinds)) < len(kinds):
        yield Problem("SKD-C10", document.place(("budgets",)), "budgets has a kind twice", "use a plan for each")
    for path, items in items_of(config):
        tasks = [one.task for one in items]
        if len(set(tasks)) < len(tasks):
            found = f"{dotted(path)} names a task twice"
            yield Problem("SKD-C10", document.place(path), found, "measure it once, with more items")


def items_of(config: PlanConfig) -> Iterator[tuple[KeyPath, tuple[ItemsConfig, ...]]]:
    """Everything that models are measured on, with its path in the plan."""
    yield ("evaluation",), config.evaluation
    for name, setting in config.settings.items():
        yield ("settings", name, "evaluation"), setting.evaluation or ()
    yield ("curve",), (config.curve,) if config.curve else ()
    yield ("tune", "items"), (config.tune.items,) if config.tune else ()


def unknown_stages(config: RunConfig, known: Iterable[str], place: str) -> Iterator[Problem]:
    """Models of a run that are stages which do not exist, or come later."""
    for role, model in config.models.items():
        name = model.path.removeprefix(STAGE) if model.path.startswith(STAGE) else None
        if name is not None and name not in known:
            yield Problem("SKD-C12", place, f"{role} is {STAGE}{name}, no stage before it", _one_of(name, known))


def unmeasured_curve(config: PlanConfig, run: RunConfig, document: Document) -> Iterator[Problem]:
    """A curve is measured at the validations of a run, and this one has none."""
    if config.curve is not None and run.data.validation is None:
        found = "curve is measured at validations, and there are none without data.validation"
        yield Problem("SKD-C10", document.place(("curve",)), found, "add data.validation to the base, or leave it out")


def _one_of(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"write one of: {', '.join(known) or 'there is none yet'}"

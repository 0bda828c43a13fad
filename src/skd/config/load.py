"""From a YAML file and overrides to a checked RunConfig, or to one error that lists every problem."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from skd.config.contradictions import Contradiction, contradictions
from skd.config.credentials import quoted, variable_of_key, variable_of_value
from skd.config.document import MAX_DEPTH, STAND_IN, Document, KeyPath, value_at
from skd.config.dump import config_digest, dump_config
from skd.config.fields import PathText
from skd.config.idle import idle_on_purpose
from skd.config.include import read_with_parts
from skd.config.legacy import in_our_terms
from skd.config.models import StudentModel, TeacherConfig
from skd.config.overrides import apply_overrides
from skd.config.problems import dotted, problem_of
from skd.config.schema import RunConfig, TrainConfig
from skd.config.sources import DataConfig
from skd.errors import ConfigError, Problem

__all__ = [
    "Reading",
    "Sections",
    "checked_config",
    "config_digest",
    "config_of",
    "dump_config",
    "load_config",
    "read_config",
]

logger = logging.getLogger(__name__)


class Sections(BaseModel):
    """What of a config is right on its own; None for a section that is wrong or not there."""

    model_config = ConfigDict(frozen=True)

    student: StudentModel | None = None
    teacher: TeacherConfig | None = None
    data: DataConfig | None = None
    train: TrainConfig | None = TrainConfig()
    output: PathText | None = RunConfig.model_fields["output"].default


_NOTHING = Sections(train=None, output=None)


@dataclass(frozen=True)
class Reading:
    """A config file as far as it could be read."""

    config: RunConfig | None
    """None when there is a problem."""
    problems: Sequence[Problem] = ()
    sections: Sections = _NOTHING
    """For a file with problems, what of it can be looked at all the same."""

    def require(self) -> RunConfig:
        """The config. Raises ConfigError with all problems."""
        if self.config is None:
            raise ConfigError(self.problems)
        return self.config


def load_config(path: str | Path, overrides: Sequence[str] | Mapping[str, object] = ()) -> RunConfig:
    """Read and check a config file with the files that it includes. Nothing else is opened: no data, no model.

    Files of the code published with the paper are read, too, and said in our terms.

    Args:
        path: YAML file, UTF-8, at most 1 MiB.
        overrides: ``"section.key=value"`` texts, the value written as YAML, or a mapping from dotted key to value.
            Applied in order, before anything is checked.

    Raises:
        ConfigError: with all problems of the file and the overrides, each with its file and line.
    """
    return read_config(path, overrides).require()


def read_config(path: str | Path, overrides: Sequence[str] | Mapping[str, object] = ()) -> Reading:
    """As ``load_config``, but what is wrong is returned, with those sections that are right."""
    try:
        document = read_with_parts(Path(path))
    except ConfigError as error:
        return Reading(None, error.problems)
    ours = in_our_terms(document)
    # Files of other programs list all their keys, whether or not they have an effect.
    return _checked(ours, overrides, refuse_idle=ours is document)


def config_of(
    values: RunConfig | Mapping[str, object], overrides: Sequence[str] | Mapping[str, object] = ()
) -> RunConfig:
    """A config given as plain values, or one to be changed, checked exactly as a file is. Raises as ``load_config``."""
    return _checked(Document("config", data=_plain(values)), overrides).require()


def _plain(value: Any, depth: int = 1) -> Any:
    """A copy made of mappings, lists and scalars only: sections as mappings, path objects as text."""
    if depth > MAX_DEPTH:
        raise ConfigError(Problem("SKD-C09", "config", f"more than {MAX_DEPTH} levels of nesting", "remove levels"))
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    return str(value) if isinstance(value, os.PathLike) else value


def checked_config(
    document: Document, overrides: Sequence[str] | Mapping[str, object], places: Mapping[str, str] | None = None
) -> RunConfig:
    """The config of a document that was read, with overrides. ``places``: where each override was written.

    Raises ConfigError with all problems, in the order of their lines.
    """
    return _checked(document, overrides, places).require()


def _checked(
    document: Document,
    overrides: Sequence[str] | Mapping[str, object],
    places: Mapping[str, str] | None = None,
    *,
    refuse_idle: bool = False,
) -> Reading:
    if isinstance(document.data, dict):
        apply_overrides(document, overrides, places or {})
        _remove_secrets(document)
    config, details = _validated(document)
    if refuse_idle and not document.partial:
        _tell(document, idle_on_purpose(document))
    if document.problems or config is None:
        return Reading(None, sorted(document.problems, key=_position), _sections(document, details))
    for name, text, value in _read_as_numbers(document, config):
        logger.info("%s is the text %s, read as the number %g", name, quoted(text), value)
    return Reading(config)


def _position(problem: Problem) -> tuple[str, int]:
    """File and line of the problem; those without a line come first, in the order they were found."""
    file, _, line = problem.place.removesuffix(":").rpartition(":")
    if file.rpartition(":")[2].isdecimal():
        file, _, line = file.rpartition(":")
    return (file, int(line)) if line.isascii() and line.isdigit() else ("", 0)


def _validated(document: Document) -> tuple[RunConfig | None, list[ErrorDetails]]:
    """The config, or None with the schema's errors, whose problems are added to the document."""
    if not isinstance(document.data, dict):
        return None, []
    try:
        return RunConfig.model_validate(document.data), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    told = [detail for detail in details if detail["type"] != "contradictions"]
    if document.partial:
        told = [detail for detail in told if detail["type"] != "missing" or len(detail["loc"]) > 1]
    found = [problem_of(detail, document) for detail in told]
    document.problems.extend(dict.fromkeys(problem for problem in found if problem is not None))
    if not document.partial:
        _tell(document, contradictions(document.data))
    return None, details


def _tell(document: Document, found: Iterable[Contradiction]) -> None:
    for contradiction in found:
        place = document.place(contradiction.path)
        document.problems.append(Problem("SKD-C10", place, contradiction.found, contradiction.remedy))


def _sections(document: Document, details: Iterable[ErrorDetails]) -> Sections:
    """The sections in which nothing is wrong, each read by itself."""
    if not isinstance(document.data, dict):
        return _NOTHING
    wrong = {*document.unsound, *(path[0] for path in document.bad), *(d["loc"][0] for d in details if d["loc"])}
    return Sections.model_validate({**document.data, **dict.fromkeys(wrong)})


def _remove_secrets(document: Document) -> None:
    """Report secrets and take them out of the data, so that no later message can show one."""
    for path, key, value in list(_entries(document.data, ())):
        variable = variable_of_key(key) if isinstance(key, str) else None
        what = f"{dotted(path)} is a secret"
        if variable is None and isinstance(value, str):
            variable = variable_of_value(value)
            what = f"the value of {dotted(path)} looks like a secret"
        if variable is None:
            continue
        found = f"{what}, and a config file is saved and shared with the run"
        remedy = f"remove it and set the environment variable {variable}"
        document.problems.append(Problem("SKD-C11", document.place(path), found, remedy))
        document.bad.add(path)
        container = value_at(path[:-1], document.data)
        container[key] = STAND_IN


def _entries(data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any, Any]]:
    """(path, key, value) of everything inside ``data``."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key), key, value
        yield from _entries(value, (*path, key))


def _read_as_numbers(document: Document, config: RunConfig) -> Iterator[tuple[str, str, float]]:
    """(key, text, number) of numbers that were written as text, such as 1e-5."""
    for path, _, text in _entries(document.data, ()):
        if isinstance(text, str):
            value: Any = config
            for key in path:
                value = _inside(value, key)
            if isinstance(value, float):
                yield dotted(path), text, value


def _inside(value: Any, key: Any) -> Any:
    """What the config holds under a key of the file; a value given alone stands in a list of one."""
    if isinstance(value, tuple) and isinstance(key, int):
        return value[key]
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return getattr(value, str(key), None)

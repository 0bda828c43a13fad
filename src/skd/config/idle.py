"""Settings that have no effect beside others (SKD-C10): sampling where nothing is sampled, saves after the last step,
a method's name where a file has another policy.

Written on purpose they are refused: on the command line, or in one file with the key that makes them idle. Where a
shared part, a plan or Python values bring them, or the other key was changed on top, the run goes on and is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skd.config.contradictions import Contradiction, kind_of, policies_in, said_by
from skd.config.document import Document, KeyPath, value_at
from skd.config.methods import ALIASES, METHODS, with_method
from skd.config.problems import dotted
from skd.config.schema import RunConfig, SamplingConfig, TrainConfig
from skd.errors import Problem

__all__ = ["idle_on_purpose", "idle_problems", "idle_saves"]

_OF_A_RECORD = ("method", "policy", "objective", "sampling", "train", "output")
"""Sections that a run writes into its own config.yaml: where all stand, none says that its keys were chosen."""
_READ_ALWAYS = "evidence"
"""Of the section sampling: also says how the teacher reads the responses of the data."""
_COMMAND_LINE = "--override "
_SOONER = "write a smaller one, or null for the last step alone"


@dataclass(frozen=True)
class _Idle:
    """``keys`` have no effect because of what the key ``cause`` says."""

    keys: Sequence[KeyPath]
    cause: KeyPath
    found: str
    remedy: str

    def told(self, keys: Sequence[KeyPath]) -> str:
        """What is wrong with some of the keys."""
        verb = "has" if len(keys) == 1 else "have"
        return f"{', '.join(map(dotted, keys))} {verb} no effect: {self.found}"


def idle_on_purpose(document: Document) -> Iterator[Contradiction]:
    """Those that somebody wrote where they cannot have an effect: the document with its overrides, as written."""
    data = document.data
    if not isinstance(data, Mapping):
        return
    yield from _outvoted(document, data)
    record = all(key in data for key in _OF_A_RECORD)
    for idle in _idle(data):
        keys = [key for key in idle.keys if _meant(document, key, idle.cause, record)]
        if keys:
            yield Contradiction(keys[0], idle.told(keys), idle.remedy)


def _outvoted(document: Document, data: Mapping[Any, Any]) -> Iterator[Contradiction]:
    """A method from the command line, beside a policy or gate in a file that is not its own and goes first."""
    name = data.get("method")
    method = METHODS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if method is None or not document.place(("method",)).startswith(_COMMAND_LINE):
        return
    for path in (("policy",), ("policy", "gate")):
        own, given = (kind_of(value_at(path, values)) for values in ({"policy": method.policy}, data))
        if own and given and own != given and not _overridden(document, path):
            found = (
                f"method {name} has {dotted(path)} {own}, and the file's {dotted(path)} is {given}, which goes first"
            )
            yield Contradiction(("method",), found, f"add {dotted(path)}={own}, or take the policy out of the file")
            return


def _overridden(document: Document, key: KeyPath) -> bool:
    places = (place for known, place in document.places.items() if known[: len(key)] == key)
    return any(place.startswith(_COMMAND_LINE) for place in places)


def idle_problems(config: RunConfig) -> list[Problem]:
    """All of a checked config whose values are not the defaults, to be told and not to be refused."""
    plain = config.given()
    usual = {"sampling": _plain_sampling(config), "train": TrainConfig().model_dump(mode="json")}
    for name, defaults in usual.items():
        values = getattr(config, name).model_dump(mode="json")
        plain[name] = {key: value for key, value in values.items() if value != defaults[key]}
    return [Problem("SKD-C10", dotted(idle.keys[0][:1]), idle.told(idle.keys), idle.remedy) for idle in _idle(plain)]


def idle_saves(config: RunConfig, num_prompts: int) -> Problem | None:
    """Saves that come after the last step, where the epochs give the number of steps."""
    settings, steps = config.train, config.train.num_steps(num_prompts)
    every = settings.save_every
    if settings.max_steps is not None or every in (None, TrainConfig().save_every) or every <= steps:
        return None
    found = f"is {every}, and train.epochs {settings.epochs:g} are {steps} steps, so that the last one alone is saved"
    return Problem("SKD-C10", "train.save_every", found, _SOONER)


def _plain_sampling(config: RunConfig) -> dict[str, Any]:
    return SamplingConfig.model_validate(METHODS[config.method].sampling).model_dump(mode="json")


def _idle(data: Mapping[Any, Any]) -> Iterator[_Idle]:
    policies = list(policies_in(with_method(data).get("policy"), ("policy",)))
    writing = [policy for policy in policies if policy.kind not in {"mixture", "staged"}]
    sampling = data.get("sampling")
    if writing and {policy.kind for policy in writing} == {"data_set"} and isinstance(sampling, Mapping):
        cause, name = said_by(data, writing[0])
        keys = [("sampling", key) for key in sampling if key != _READ_ALWAYS]
        found = f"{name} takes the responses of the data and samples none"
        if keys:
            yield _Idle(keys, cause, found, f"leave out what is idle, or choose another {cause[0]}")
    every, steps = (value_at(("train", key), data) for key in ("save_every", "max_steps"))
    if type(every) is int and type(steps) is int and every > steps:
        found = f"it is {every}, and train.max_steps {steps}, so that the last step alone is saved"
        yield _Idle([("train", "save_every")], ("train", "max_steps"), found, _SOONER)


def _meant(document: Document, key: KeyPath, cause: KeyPath, record: bool) -> bool:
    """Whether ``key`` was written knowing of ``cause``: on the command line, or in the same file."""
    places = [place for known, place in document.places.items() if known[: len(key)] == key]
    if _overridden(document, key):
        return True
    return not record and any(_file(place) == _file(document.place(cause)) for place in places)


def _file(place: str) -> str:
    return place.rpartition(":")[0]

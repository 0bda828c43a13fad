"""Options that are right alone and wrong together. Both keys are named, since either one may be the mistake.

The functions read plain mappings and skip what has a wrong type, so that a file with other mistakes still gets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skd.config.methods import ALIASES, METHODS, with_method

__all__ = ["Contradiction", "contradictions"]


@dataclass(frozen=True)
class Contradiction:
    """``found`` at the key ``path``; ``remedy`` names the ways out."""

    path: tuple[str | int, ...]
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


def contradictions(config: Mapping[Any, Any]) -> list[Contradiction]:
    """All contradictions of a config given as plain data, keys left out taken at their defaults."""
    if _method(config) not in METHODS:
        return []
    full = with_method(config)
    policies = list(_policies(_get(full, "policy")))
    return [
        *_missing_teacher(config, policies, full),
        *_missing_references(config, policies),
        *_flash_attention(config),
    ]


def _get(config: object, *path: str) -> Any:
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _method(config: Mapping[Any, Any]) -> str | None:
    name = config.get("method", "skd")
    return ALIASES.get(name, name) if isinstance(name, str) else None


def _policies(policy: Any) -> Iterator[str]:
    """The kinds of a policy and of all inside it."""
    if isinstance(kind := _get(policy, "kind"), str):
        yield kind
    parts = _get(policy, "parts")
    for part in parts if isinstance(parts, (list, tuple)) else ():
        yield from _policies(_get(part, "policy"))


def _kind(section: Any) -> str | None:
    kind = section if isinstance(section, str) else _get(section, "kind")
    return kind if isinstance(kind, str) else None


def _named(config: Mapping[Any, Any], section: str, key: str, kind: str) -> tuple[tuple[str, ...], str]:
    """The key that chose a kind, and how to say it: the method's where the config does not say it itself."""
    value = _get(config, section, key)
    if _kind(value) != kind:
        return ("method",), f"method {config.get('method', 'skd')} ({section} {kind})"
    path = (section, key) if isinstance(value, str) or key == "kind" else (section, key, "kind")
    return path, f"{'.'.join(path)} {kind}"


_ALONE = {"method": "method: sft", "policy": "policy.kind: data_set", "objective": "objective.loss: nll"}
"""What needs no teacher."""


def _missing_teacher(config: Mapping[Any, Any], policies: list[str], full: Mapping[Any, Any]) -> list[Contradiction]:
    if config.get("teacher") is not None:
        return []
    needing = [
        _named(config, "policy", "kind", kind) for kind in policies if kind in {"teacher", "student", "interleaved"}
    ]
    for stream in ("loss", "data", "student", "teacher"):
        kind = _kind(_get(full, "objective", stream))
        if kind not in {None, "nll", "custom"}:
            needing.append(_named(config, "objective", stream, str(kind)))
    if _kind(_get(full, "objective", "weights")) == "teacher_top_k":
        needing.append(_named(config, "objective", "weights", "teacher_top_k"))
    named = set(needing)
    if len(named) > 1 and all(path == ("method",) for path, _ in named):
        named = {(("method",), f"method {config.get('method', 'skd')}")}
    return [
        Contradiction(
            path, f"{name} needs a teacher, and teacher is missing", f"add teacher: PATH, or write {_ALONE[path[0]]}"
        )
        for path, name in sorted(named)
    ]


def _missing_references(config: Mapping[Any, Any], policies: list[str]) -> list[Contradiction]:
    if "data_set" not in policies:
        return []
    path, name = _named(config, "policy", "kind", "data_set")
    found = []
    for place, source in _data_sources(config):
        if "response_field" in source and source["response_field"] is None:
            key = ".".join(map(str, (*place, "response_field")))
            text = f"{name} trains on the responses of the data, and {key} is null"
            remedy = f"name the field in {key}, or choose another {path[0]}"
            found.append(Contradiction((*place, "response_field"), text, remedy))
    return found


def _data_sources(config: Mapping[Any, Any]) -> Iterator[tuple[tuple[str | int, ...], Mapping[Any, Any]]]:
    """The sources of rows with their keys, given alone or in a list."""
    for part in ("train", "validation"):
        given = _get(config, "data", part)
        listed = enumerate(given) if isinstance(given, (list, tuple)) else ()
        for keys, source in (((), given), *(((index,), item) for index, item in listed)):
            if isinstance(source, Mapping):
                yield ("data", part, *keys), source


def _flash_attention(config: Mapping[Any, Any]) -> list[Contradiction]:
    precision = _get(config, "train", "precision") or "fp32"
    if _get(config, "student", "attention") != "flash_attention_2" or precision != "fp32":
        return []
    text = "student.attention is flash_attention_2, which has no float32, and train.precision is fp32"
    return [Contradiction(("student", "attention"), text, "write train.precision: bf16, or student.attention: sdpa")]

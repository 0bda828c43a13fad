"""Options that are right alone and wrong together. Both keys are named, since either one may be the mistake.

The functions read plain mappings and skip what has a wrong type, so that a file with other mistakes still gets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skd.config.methods import ALIASES, METHODS, Method

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
    method = _method(config)
    if method is None:
        return []
    policy = _kind(config, "policy", method.policy.kind)
    objective = _kind(config, "objective", method.objective.kind)
    return [
        *_missing_teacher(config, policy, objective),
        *_missing_references(config, policy),
        *_flash_attention(config),
    ]


def _get(config: object, *path: str) -> Any:
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _method(config: Mapping[Any, Any]) -> Method | None:
    name = config.get("method", "skd")
    return METHODS.get(ALIASES.get(name, name)) if isinstance(name, str) else None


def _kind(config: Mapping[Any, Any], section: str, default: str) -> str | None:
    """The kind in a section, the method's where there is no section, None where it cannot be told."""
    if config.get(section) is None:
        return default
    kind = _get(config, section, "kind")
    return kind if isinstance(kind, str) else None


def _named(config: Mapping[Any, Any], section: str, kind: str | None) -> tuple[tuple[str, ...], str]:
    """The key that chose the kind of a section, and how to say it."""
    if config.get(section) is None:
        return ("method",), f"method {config.get('method', 'skd')} ({section} {kind})"
    return (section, "kind"), f"{section}.kind {kind}"


_ALONE = {"method": "method: sft", "policy": "policy.kind: data_set", "objective": "objective.kind: nll"}
"""What needs no teacher."""


def _missing_teacher(config: Mapping[Any, Any], policy: str | None, objective: str | None) -> list[Contradiction]:
    if config.get("teacher") is not None:
        return []
    needing = []
    if policy in {"teacher", "student", "interleaved"}:
        needing.append(("policy", policy))
    if objective in {"forward_kl", "reverse_kl", "jsd"}:
        needing.append(("objective", objective))
    named = {_named(config, section, kind) for section, kind in needing}
    if len(named) == 2 and all(path == ("method",) for path, _ in named):
        named = {(("method",), f"method {config.get('method', 'skd')}")}
    return [
        Contradiction(
            path, f"{name} needs a teacher, and teacher is missing", f"add teacher: PATH, or write {_ALONE[path[0]]}"
        )
        for path, name in sorted(named)
    ]


def _missing_references(config: Mapping[Any, Any], policy: str | None) -> list[Contradiction]:
    if policy != "data_set":
        return []
    path, name = _named(config, "policy", policy)
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

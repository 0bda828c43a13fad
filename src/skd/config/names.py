"""The names the schema knows, and the nearest one to a name it does not know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from skd.config.document import value_at
from skd.config.fields import kind_from_text
from skd.config.numbers import ScheduleConfig
from skd.config.schema import RunConfig

__all__ = ["children", "field_at", "has_own_keys", "kinds", "nearest", "nearest_key", "owners", "tags", "takes_name"]

SYNONYMS: Mapping[str, str] = {
    "learning_rate": "train.lr",
    "lr_scheduler": "train.schedule",
    "lr_scheduler_type": "train.schedule",
    "num_epoch": "train.epochs",
    "num_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "steps": "train.max_steps",
    "warmup_ratio": "train.warmup",
    "max_grad_norm": "train.clip_norm",
    "gradient_clipping": "train.clip_norm",
    "mixed_precision": "train.precision",
    "output_dir": "output",
    "gamma": "policy.block",
    "top_k": "policy.gate.k",
    "k": "policy.gate.k",
    "kd_type": "method",
    "parts": "policy.parts",
    "mixed_ratio": "policy.parts",
    "lmbda": "policy.parts",
    "beta": "objective.loss.beta",
    "jsd_beta": "objective.loss.beta",
    "alpha": "objective.loss.alpha",
    "divergence": "objective.loss",
    "distance_metric": "objective.loss",
    "max_seq_length": "data.max_prompt_tokens",
    "model_name_or_path": "student.path",
    "path": "student.path",
    "student_temperature": "sampling.student.temperature",
    "teacher_temperature": "sampling.teacher.temperature",
    "student_top_p": "sampling.student.top_p",
    "teacher_top_p": "sampling.teacher.top_p",
}
"""What other tools call our keys."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, or None when none is like it."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    else:
        for part in get_args(annotation):
            yield from _models(part)


def _sections(path: tuple[Any, ...], data: Any) -> list[type[BaseModel]]:
    """The sections that may stand at ``path``; narrowed by the ``kind`` in ``data`` where it says one."""
    sections: list[type[BaseModel]] = [RunConfig]
    admitted, is_item = sections, False
    for key in path:
        data = value_at((key,), data)
        fields = [] if is_item else [section.model_fields[key] for section in sections if key in section.model_fields]
        if not (is_item or isinstance(key, int)):
            admitted = [model for field in fields for model in _models(field.annotation)]
        # An item of a list or mapping may be whatever that admits, whichever kind its neighbours have.
        sections, is_item = admitted, any(map(_is_mapping, fields))
        section = kind_from_text(data)
        kind = section.get("kind") if isinstance(section, Mapping) else None
        chosen = [model for model in sections if _kind(model) == kind] if kind is not None else []
        sections = chosen or sections
    return sections


def _is_mapping(field: FieldInfo) -> bool:
    """Whether the keys under the field are the user's own."""
    return get_origin(field.annotation) is dict


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    literals = get_args(field.annotation) if field else ()
    return literals[0] if len(literals) == 1 else None


def kinds(annotation: Any, keys: Iterable[str] = ()) -> list[str]:
    """The values of ``kind`` over the sections that an annotation admits, of those that have all ``keys``."""
    models = [model for model in _models(annotation) if set(keys) <= set(model.model_fields)]
    return [kind for model in models if (kind := _kind(model)) is not None]


def tags(annotation: Any) -> set[str]:
    """What pydantic puts after a key, in the place of an error, where the key's value is one of several sections."""
    numbers = {"number", "schedule"} if ScheduleConfig in _models(annotation) else set()
    return {*kinds(annotation), *numbers}


def takes_name(field: FieldInfo) -> bool:
    """Whether a plain name stands for a section of that kind."""
    return any(getattr(validator, "func", None) is kind_from_text for validator in _metadata(field))


def _metadata(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for part in get_args(field.annotation):
        yield from getattr(part, "__metadata__", ())


def owners(path: tuple[Any, ...], data: Any) -> list[str]:
    """Kinds of section that may stand above ``path`` and know its last key, when the one there does not."""
    above = None if len(path) < 2 or isinstance(path[-2], int) else field_at(path[:-1], data)
    return [] if above is None else kinds(above.annotation, [path[-1]])


def children(path: tuple[Any, ...], data: Any) -> list[str]:
    """The keys that may stand under ``path``."""
    return list(dict.fromkeys(key for section in _sections(path, data) for key in section.model_fields))


def field_at(path: tuple[Any, ...], data: Any) -> FieldInfo | None:
    """The field at ``path``, or None when there is none; an item of a list or mapping has the field of that."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    if path and has_own_keys(path[:-1], data):
        path = path[:-1]
    return _field(path, data)


def has_own_keys(path: tuple[Any, ...], data: Any) -> bool:
    """Whether the keys under ``path`` are names that the user gives."""
    field = None if len(path) > 1 and has_own_keys(path[:-1], data) else _field(path, data)
    return field is not None and _is_mapping(field)


def _field(path: tuple[Any, ...], data: Any) -> FieldInfo | None:
    for section in _sections(path[:-1], data) if path else []:
        if path[-1] in section.model_fields:
            return section.model_fields[path[-1]]
    return None


@cache
def _elsewhere() -> dict[str, str]:
    """Key -> dotted path, for keys that one kind of section has: the shortest path, where that section may stand."""
    found: dict[str, dict[type[BaseModel], str]] = {}
    sections: list[tuple[type[BaseModel], str]] = [(RunConfig, "")]
    seen: set[type[BaseModel]] = {RunConfig}
    for section, prefix in sections:
        for key, field in section.model_fields.items():
            found.setdefault(key, {})[section] = prefix + key
            item = ".0" if get_origin(field.annotation) is tuple else ""
            inner = [model for model in _models(field.annotation) if model not in seen]
            seen.update(inner)
            sections += [(model, f"{prefix}{key}{item}.") for model in inner]
    return {key: next(iter(paths.values())) for key, paths in found.items() if len(paths) == 1}


def nearest_key(path: tuple[Any, ...], data: Any) -> str | None:
    """The dotted path most likely meant by the unknown key ``path``, or None."""
    key, prefix = str(path[-1]), ".".join(map(str, path[:-1]))
    normal = key.lower().replace("-", "_")
    if near := nearest(normal, children(path[:-1], data)):
        return f"{prefix}.{near}" if prefix else near
    if prefix and (below := _below(path[:-1], normal)):
        return f"{prefix}.{below}.{normal}"
    known = {**_elsewhere(), **SYNONYMS}
    like = "" if prefix else nearest(normal, known) or ""
    meant = known.get(normal) or known.get(like)
    return None if meant == ".".join(map(str, path)) else meant


def _below(path: tuple[Any, ...], key: str) -> str | None:
    """The first section under ``path`` that may have ``key``, of whatever kind."""
    return next((child for child in children(path, None) if key in children((*path, child), None)), None)

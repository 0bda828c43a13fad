"""A config as YAML text, and as the digest that provenance and resume compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from skd.config.schema import RunConfig

__all__ = ["config_digest", "dump_config"]


def dump_config(config: RunConfig, *, docs: bool = False) -> str:
    """``config`` as YAML with every key, which ``load_config`` reads back to an equal config.

    With ``docs``, each key is followed by what it means, as a comment.
    """
    return "".join(f"{line}\n" for line in _lines(config, 0, docs))


def config_digest(config: RunConfig) -> str:
    """sha256, in hexadecimal, of the config as JSON with sorted keys. Equal configs have equal digests."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _lines(section: BaseModel, indent: int, docs: bool) -> Iterator[str]:
    values: Mapping[str, Any] = section.model_dump(mode="json")
    for key in values:
        value = getattr(section, key)
        if isinstance(value, tuple) and isinstance(values[key], Mapping):
            (value,) = value  # Given alone where a list may stand, and written so.
        inner = list(_inner(value, indent + 2, docs))
        head = f"{' ' * indent}{key}:" if inner else f"{' ' * indent}{key}: {_flow(values[key])}"
        doc = " ".join((type(section).model_fields[key].description or "").split()) if docs else ""
        yield f"{head}  # {doc}" if doc else head
        yield from inner


def _inner(value: Any, indent: int, docs: bool) -> Iterator[str]:
    """The lines of a section or of a list of sections; none for other values."""
    if isinstance(value, BaseModel):
        yield from _lines(value, indent, docs)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for item in value:
            first, *more = _lines(item, indent + 2, docs)
            yield f"{' ' * indent}- {first.lstrip()}"
            yield from more


def _flow(value: Any) -> str:
    """A scalar or a list on one line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()


class _Dumper(yaml.SafeDumper):
    """Writes text with line breaks or hidden characters in double quotes, on one line and with escapes."""

    def text(self, value: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.text)

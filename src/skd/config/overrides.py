"""Changes on top of a config file: ``train.lr=2e-5`` on the command line, ``{"train.lr": 2e-5}`` in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from skd.config.credentials import quoted
from skd.config.document import Document, KeyPath, read_value, value_at
from skd.config.methods import with_method
from skd.config.names import field_at, takes_name
from skd.errors import Problem

__all__ = ["apply_overrides"]


def apply_overrides(
    document: Document, overrides: Sequence[str] | Mapping[str, object], places: Mapping[str, str]
) -> None:
    """Put the overrides into ``document.data``, later ones over earlier ones; problems go to ``document.problems``.

    ``places``: where an override was written, by its name; those of the command line are in none of them.
    The method comes first, since others may change what only its defaults have.
    """
    items = overrides.items() if isinstance(overrides, Mapping) else _split(document, overrides)
    for name, value in sorted(items, key=lambda item: item[0] != "method"):
        place = places.get(name) or f"--override {quoted(name, 200)[1:-1]}"
        if not all(name.split(".")):
            document.problems.append(Problem("SKD-C05", place, "a key is empty", "write section.key=value"))
            continue
        path = _path(name, _full(document))
        document.forget(path)
        _place_all(document, path, place)
        if not isinstance(overrides, Mapping):
            value = read_value(document, str(value), path, place)
        _put(document, path, value, place)


def _split(document: Document, overrides: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in overrides:
        name, equals, value = text.partition("=")
        if equals:
            yield name.strip(), value
        else:
            found = f"{quoted(text)} has no value"
            document.problems.append(Problem("SKD-C05", "--override", found, "write section.key=value"))


def _full(document: Document) -> dict[Any, Any]:
    """The data with the method's defaults."""
    return with_method(document.data if isinstance(document.data, dict) else {})


def _path(name: str, data: Any) -> KeyPath:
    """``policy.parts.0.kind`` as keys; a number is the index of an item where ``data`` has a list."""
    path: KeyPath = ()
    for key in name.split("."):
        is_index = key.isascii() and key.isdigit() and isinstance(value_at(path, data), list)
        path = (*path, int(key) if is_index else key)
    return path


def _place_all(document: Document, path: KeyPath, place: str) -> None:
    for length in range(1, len(path) + 1):
        document.places.setdefault(path[:length], place)


def _put(document: Document, path: KeyPath, value: object, place: str) -> None:
    if not isinstance(document.data, dict):
        document.data = {}
    full = _full(document)
    _start_section(document, path, value, full)
    parent: Any = document.data
    for depth, key in enumerate(path):
        if not _holds(parent, key):
            document.problems.append(_no_such_key(path[:depth], parent, place))
            return
        if depth == len(path) - 1:
            parent[key] = value
            return
        inner = value_at((key,), parent)
        if isinstance(inner, str):
            inner = _spelled_out(document, path[: depth + 1], inner)
        if inner is None:
            default = value_at(path[: depth + 1], full)
            inner = deepcopy(default) if isinstance(default, list) else {}
        parent[key] = inner
        parent = inner


def _spelled_out(document: Document, path: KeyPath, text: str) -> dict[str, str]:
    """The section that a plain string stands for: one of that kind, or a model or a data file with that path."""
    field = field_at(path, _full(document))
    key = "kind" if field is not None and takes_name(field) else "path"
    document.places.setdefault((*path, key), document.places[path])
    return {key: text}


def _holds(parent: Any, key: Any) -> bool:
    """Whether ``key`` can be set in ``parent``: any key of a mapping, an index that a list has."""
    return isinstance(parent, dict) or (isinstance(parent, list) and isinstance(key, int) and key < len(parent))


def _no_such_key(path: KeyPath, parent: Any, place: str) -> Problem:
    name = ".".join(map(str, path))
    found = f"{name} has no keys of its own"
    if isinstance(parent, list):
        found = f"{name} is a list of {len(parent)}, whose items are {name}.0 and so on"
    return Problem("SKD-C05", place, found, f"override {name} as a whole")


def _start_section(document: Document, path: KeyPath, value: object, full: Mapping[Any, Any]) -> None:
    """Let a new kind start a new section."""
    section = value_at(path[:-1], document.data)
    known = value_at(path, full)
    if path[1:] and path[-1] == "kind" and isinstance(section, dict) and known is not None and known != value:
        section.clear()

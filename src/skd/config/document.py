"""A YAML file as plain values plus the line of each, with everything refused that could change its meaning.

Refused: duplicate keys, anchors and aliases, tags, more than 20 levels or 10,000 nodes, dates, and the base-8 and
base-60 numbers of YAML 1.1. Nothing is built but text, numbers, booleans, null, lists and mappings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from skd.config.credentials import quoted
from skd.errors import ConfigError, Problem

__all__ = ["MAX_DEPTH", "STAND_IN", "Document", "read_document", "read_text", "read_value", "value_at"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_NODES = 10_000
MAX_SECTIONS = 100
"""Sections of a broken file that are read one by one; a file with more is no config."""
_TOP_LEVEL = re.compile(r"^([A-Za-z_][\w.-]*[ ]*:)(?=\s)", re.MULTILINE)
_CONTENT = re.compile(r"^(?!---\s*$)[^#\s]", re.MULTILINE)
"""A line that is no comment and no start of a document."""
STAND_IN = ""
"""Takes the place of a value that was refused, so that the key does not count as missing."""

KeyPath = tuple[Any, ...]


@dataclass
class Document:
    """``data`` with, for each key path in it, the place it was written at and the scalar as it was written."""

    name: str
    data: Any = None
    places: dict[KeyPath, str] = field(default_factory=dict)
    raw: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    bad: set[KeyPath] = field(default_factory=set)
    """Paths whose value already has a problem, so that its stand-in is not complained about as well."""
    unsound: set[Any] = field(default_factory=set)
    """Keys of the top level under which something stands twice, or is no key."""
    partial: bool = False
    """Not all of it could be read, so that what is not there may only be unread."""

    def place(self, path: KeyPath) -> str:
        """The place of ``path`` or of the nearest key above it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.name)

    def forget(self, path: KeyPath) -> None:
        """Drop what is known of ``path`` and below."""
        for table in (self.places, self.raw):
            for known in [known for known in table if known[: len(path)] == path]:
                del table[known]


class _Refused(Exception):
    """A document that cannot be read further: limits, aliases."""

    def __init__(self, code: str, found: str, remedy: str, line: int) -> None:
        super().__init__(found)
        self.code, self.found, self.remedy, self.line = code, found, remedy, line


class _Loader(yaml.SafeLoader):
    """Composes nodes within the limits; the values are built by ``_Builder``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused("SKD-C09", "a YAML anchor or alias (& or *) is used", "write the value out", line)
        if getattr(event, "tag", None) is not None:
            raise _Refused("SKD-C08", "a YAML tag (!) is used", "remove the tag and write a plain value", line)
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES:
            raise _Refused("SKD-C09", f"more than {MAX_NODES:,} values", "keep data out of the config file", line)
        if self._depth > MAX_DEPTH:
            raise _Refused("SKD-C09", f"more than {MAX_DEPTH} levels of nesting", "remove levels", line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def value_at(path: KeyPath, data: Any) -> Any:
    """The value at ``path``; None where there is nothing."""
    for key in path:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, (list, tuple)) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def read_text(path: Path) -> str:
    """The text of a config file. Raises ConfigError (SKD-C01) when it is missing, no file, too large or not UTF-8."""
    try:
        if path.is_dir():
            raise _unreadable(path, "is a directory", "name a YAML file in it")
        if not path.exists():
            raise _unreadable(path, "does not exist", "check the path")
        if not path.is_file():
            raise _unreadable(path, "is not a regular file", "name a YAML file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "is no valid path"
        raise _unreadable(path, f"cannot be read: {reason}", "check the path and its permissions") from error
    if len(content) > MAX_BYTES:
        raise _unreadable(path, "is larger than 1 MiB", "name a config file; data belongs into a file of its own")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"is not UTF-8 (byte {error.start})", "save the file as UTF-8") from error


def _unreadable(path: Path, found: str, remedy: str) -> ConfigError:
    return ConfigError(Problem("SKD-C01", quoted(str(path), 200)[1:-1], found, remedy))


def read_document(name: str, text: str) -> Document:
    """The YAML ``text`` of the file ``name``; what is wrong is in ``problems``, and then ``data`` may be incomplete.

    Of a text that is no YAML as a whole, each section of the top level is read by itself.
    """
    document = Document(name)
    if not _read(document, text, (), lambda line: f"{name}:{line}"):
        _read_sections(document, text)
    if document.data is None and not document.problems:
        document.problems.append(Problem("SKD-C01", name, "is empty", "start from a file in recipes/"))
    elif not isinstance(document.data, dict) and not document.problems:
        found = "holds no mapping of keys to values"
        document.problems.append(Problem("SKD-C02", name, found, "write lines such as method: skd"))
    return document


def read_value(document: Document, text: str, path: KeyPath, place: str) -> Any:
    """The YAML value ``text`` given for ``path`` at ``place``; places and problems go to ``document``."""
    part = Document(place)
    _read(part, text, path, lambda line: place)
    document.places.update(part.places)
    document.raw.update(part.raw)
    document.problems.extend(part.problems)
    document.bad.update(part.bad)
    document.unsound.update(part.unsound)
    if part.problems:
        document.bad.add(path)
        return STAND_IN
    return part.data


def _read_sections(document: Document, text: str) -> None:
    """What of a broken text can be read: the problems of every section, and the sections that have none."""
    parts = _TOP_LEVEL.split(text)
    if len(parts) // 2 > MAX_SECTIONS or _CONTENT.search(parts[0]):
        return
    whole = Document(document.name, data={})
    for start in range(1, len(parts), 2):
        key, line = parts[start].rstrip(": "), sum(part.count("\n") for part in parts[:start])
        section = Document(document.name)
        read = _read(section, parts[start] + parts[start + 1], (), lambda n, line=line: f"{document.name}:{n + line}")
        if not read or not isinstance(section.data, dict) or key in whole.data:
            section.data, section.bad, section.unsound = {key: STAND_IN}, {(key,)}, {key}
        whole.data |= section.data
        for name in ("problems", "bad", "unsound", "places", "raw"):
            known = getattr(whole, name)
            (known.extend if name == "problems" else known.update)(getattr(section, name))
    if whole.problems:
        # The first problem of the whole is among these, at the same line or told better.
        document.problems[:] = whole.problems
    document.data, document.partial = whole.data or None, True
    document.bad, document.unsound, document.places, document.raw = whole.bad, whole.unsound, whole.places, whole.raw


def _read(document: Document, text: str, path: KeyPath, place_of: Any) -> bool:
    """Whether the text is YAML within the limits; the reason why not is in the problems."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _Builder(document, loader, place_of).build(node, path)
        return True
    except _Refused as error:
        document.problems.append(Problem(error.code, place_of(error.line), error.found, error.remedy))
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax(error, place_of))
    except yaml.YAMLError:
        # PyYAML's reader: its message would repeat the character, which may do harm on a terminal.
        found = "holds a character that YAML does not allow"
        document.problems.append(Problem("SKD-C02", document.name, found, "remove control characters"))
    return False


def _syntax(error: yaml.MarkedYAMLError, place_of: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    reason = (error.problem or error.context or "cannot be parsed").replace("\n", " ")
    remedy = f"correct the YAML at line {line}, column {column} (indentation, a missing colon or quote)"
    return Problem("SKD-C02", f"{place_of(line)}:{column}", f"is not valid YAML: {quoted(reason, 120)[1:-1]}", remedy)


class _Builder:
    """Turns nodes into plain values and notes the place of each."""

    def __init__(self, document: Document, loader: _Loader, place_of: Any) -> None:
        self._document, self._loader, self._place_of = document, loader, place_of

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        if path:
            self._document.places.setdefault(path, self._place(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        self._document.raw[path] = node.value
        return self._scalar(node, path)

    def _place(self, node: yaml.Node) -> str:
        return str(self._place_of(node.start_mark.line + 1))

    def _problem(self, code: str, node: yaml.Node, found: str, remedy: str) -> None:
        self._document.problems.append(Problem(code, self._place(node), found, remedy))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        lines: dict[str, int] = {}
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem("SKD-C02", key_node, "a key is a list or a mapping", "write a name before the colon")
                self._document.unsound.update(path[:1])
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in lines:
                found = f"the key {quoted(key)} stands twice, at line {lines[key]} and at line {line}"
                self._problem("SKD-C04", key_node, found, "keep one of them")
                self._document.unsound.update((*path, key)[:1])
                continue
            lines[key] = line
            inner = (*path, key)
            self._document.places[inner] = self._place(key_node)
            result[key] = self.build(value_node, inner)
        return result

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        kind = node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind not in {"bool", "int", "float", "timestamp"}:
            return node.value
        if trap := _trap(kind, node.value):
            name = ".".join(map(str, path))
            remedy = f'write {name}: "{node.value}" in quotes if text is meant, or a plain decimal number'
            self._problem("SKD-C06", node, f"{name} is {node.value}, which YAML reads as {trap}", remedy)
            self._document.bad.add(path)
            return STAND_IN
        try:
            return getattr(self._loader, f"construct_yaml_{kind}")(node)
        except (ValueError, OverflowError, IndexError):
            found = f"{quoted(node.value)} is no number that can be read"
            self._problem("SKD-C06", node, found, "write a plain decimal number, or put text in quotes")
            self._document.bad.add(path)
            return STAND_IN


def _trap(kind: str, text: str) -> str | None:
    """What YAML 1.1 makes of a scalar that most people would read otherwise."""
    if kind == "timestamp":
        return "a date"
    digits = text.lstrip("+-").replace("_", "")
    if kind in {"int", "float"} and ":" in digits:
        return "a base-60 number"
    if kind == "int" and len(digits) > 1 and digits[0] == "0" and digits[1] not in "xXbB":
        return "a base-8 number"
    return None

"""What a config file says, read a second time by other code: a scalar means what its characters say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

__all__ = ["misreadings"]

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0b[01]+)")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_NULL = ("", "~", "null", "Null", "NULL")


def misreadings(text: str, accepted: Mapping[str, Any]) -> list[str]:
    """The places of a YAML text at which the accepted values are not what is written there."""
    node = yaml.compose(text.removeprefix("\ufeff"), Loader=yaml.SafeLoader)
    if isinstance(node, yaml.MappingNode):
        # The file goes over the files it includes, so that what it says itself must be there all the same.
        node.value = [(key, value) for key, value in node.value if key.value != "include"]
    return [] if node is None else list(_different(node, accepted, ""))


def _different(node: yaml.Node, value: Any, path: str) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        yield from _mapping(node, value, path)
    elif isinstance(node, yaml.SequenceNode):
        if isinstance(value, Mapping) and len(node.value) == 1:  # one source is shown without its list
            value = [value]
        if not isinstance(value, list) or len(value) != len(node.value):
            yield f"{path}: a list of {len(node.value)} became {value!r}"
            return
        for number, (item, inner) in enumerate(zip(node.value, value, strict=True)):
            yield from _different(item, inner, f"{path}[{number}]")
    elif isinstance(node, yaml.ScalarNode) and not _means(node.value, node.style is None, value):
        yield f"{path}: {node.value!r} became {value!r}"


def _mapping(node: yaml.MappingNode, value: Any, path: str) -> Iterator[str]:
    keys = [key.value for key, _ in node.value]
    if len(keys) != len(set(keys)):
        yield f"{path}: a key stands twice"
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    for key, inner in node.value:
        if not isinstance(value, Mapping) or key.value not in value:
            yield f"{path}.{key.value}: is not in what was accepted"
        else:
            yield from _different(inner, value[key.value], f"{path}.{key.value}")


def _means(text: str, plain: bool, value: Any) -> bool:
    """Whether a scalar may be read as ``value``; a section or a list may be given by the one scalar in it."""
    if isinstance(value, Mapping):
        # A section without a value has its defaults.
        return (plain and text in _NULL) or any(_means(text, plain, inner) for inner in value.values())
    if isinstance(value, list):
        return any(_means(text, plain, inner) for inner in value)
    if isinstance(value, bool):
        return plain and text in (_TRUE if value else _FALSE)
    if value is None:
        return plain and text in _NULL
    if isinstance(value, int):
        return plain and _is_integer(text, value)
    if isinstance(value, float):
        return _is_integer(text, value) or (bool(_FLOAT.fullmatch(text)) and float(text) == value)
    # A path's leading ~ is the home directory, and a method may be spelt with dashes.
    return str(value) in (text, os.path.expanduser(text), text.replace("-", "_"))


def _is_integer(text: str, value: float) -> bool:
    """Decimal without a leading zero, which some read as octal; 0x and 0b mean the same to everyone."""
    return bool(_INTEGER.fullmatch(text)) and int(text, 0) == value

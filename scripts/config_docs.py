"""Writes docs/config.md from the config schema: ``python -m scripts.config_docs``. A test holds the page current."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from scripts.findings import ROOT
from skd.config import RunConfig
from skd.config.fields import MAX_INT32, InRange, Section
from skd.config.methods import method_rows

__all__ = ["PAGE", "page"]

PAGE = ROOT / "docs" / "config.md"

_HEAD = """\
# Configuration

A run is one YAML file, read by `skd train FILE`. Any key can be set again on the command line with its dotted name:
`skd train FILE train.lr=2e-5 policy.gate.k=10`. `skd train FILE --print-config` shows what comes out, defaults
included. A key that does not exist is refused, with the nearest one that does; all problems are listed at once.

Keys without a default must be given. Where a value is one of several sections, `kind` says which.

A file may be made of parts: `include: [parts/models.yaml, parts/data.yaml]` at the top names other files, from the
folder of the file that says so. A later one goes over an earlier one, and the file itself over all of them, key by
key; a list replaces a list, and a section of another `kind` or a plain text replaces a section. Errors name the file
and line of the value; the config that is printed and saved with a run is whole. The recipes are made this way
([recipes/README.md](../recipes/README.md)).

This page is written by `python -m scripts.config_docs` from `skd.config.RunConfig`; do not edit it by hand.
"""


def _strip(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without ``Annotated``, and what it was annotated with."""
    if get_origin(annotation) is Annotated:
        inner, metadata = _strip(annotation.__origin__)
        return inner, (*annotation.__metadata__, *metadata)
    return annotation, ()


def _anchor(section: type[Section]) -> str:
    return f"[{section.__name__}](#{section.__name__.lower()})"


def _bounds(metadata: Sequence[Any]) -> str:
    """`` of at least 1`` for the last range among the validators, which is the narrowest, or nothing."""
    ranges = [item.func for item in metadata if isinstance(getattr(item, "func", None), InRange)]
    text = str(ranges[-1]).removeprefix("a number") if ranges else ""
    return text.removesuffix(f" and at most {MAX_INT32}")


def _values(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The values that a key may have, in words."""
    annotation, own = _strip(annotation)
    metadata = (*metadata, *own)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if len(named := kinds(annotation)) > 1:
        links = [f"[`{kind}`](#{section.__name__.lower()})" for kind, section in named.items()]
        return ", ".join(links) + (", `null`" if NoneType in args else "")
    if origin in (Union, UnionType):
        return " or ".join(_values(arg, metadata) for arg in args)
    if origin is tuple:
        return f"list of {_values(args[0])}" if args[-1] is Ellipsis else f"list of {len(args)}: {_values(args[0])}"
    if origin is dict:
        return f"mapping to {_values(args[1])}" if kinds(args[1]) else "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _anchor(annotation)
    words = {NoneType: "`null`", bool: "`true`, `false`", int: "whole number", float: "number", str: "text"}
    return words[annotation] + (_bounds(metadata) if annotation in (int, float) else "")


def kinds(annotation: Any) -> dict[str, type[Section]]:
    """``kind`` -> section, of the sections that a value may be itself, not those in a list."""
    annotation, _ = _strip(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return {kind: section for arg in get_args(annotation) for kind, section in kinds(arg).items()}
    if isinstance(annotation, type) and issubclass(annotation, Section) and "kind" in annotation.model_fields:
        return {get_args(annotation.model_fields["kind"].annotation)[0]: annotation}
    return {}


def _list_of_kinds(section: type[Section], listed: set[str]) -> Iterator[str]:
    """What each kind is, for the keys of a section that have several; once for each list of kinds."""
    for name, field in section.model_fields.items():
        named = kinds(field.annotation)
        if len(named) < 2 or ",".join(named) in listed:
            continue
        listed.add(",".join(named))
        yield ""
        yield f"| kind of `{name}` | what it is |"
        yield "|---|---|"
        for kind, inner in named.items():
            yield f"| [`{kind}`](#{inner.__name__.lower()}) | {_first_line(inner)} |"


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None:
        return "`{}`"
    if isinstance(field.default, Section):
        kind = getattr(field.default, "kind", None)
        return f"`{kind}`" if kind else _schedule(field.default)
    return f"`{json.dumps(field.default)}`"


def _schedule(section: Section) -> str:
    values = section.model_dump(exclude_unset=True)
    return f"`{{{', '.join(f'{key}: {value}' for key, value in values.items())}}}`" if values else "its defaults"


def _table(section: type[Section]) -> Iterator[str]:
    yield "| key | values | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        meaning = (field.description or "").replace("\n", " ").replace("|", "\\|")
        yield f"| `{name}` | {_values(field.annotation, field.metadata)} | {_default(field)} | {meaning} |"


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Sections named in an annotation, in the order of the text."""
    annotation, _ = _strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for arg in get_args(annotation):
        if get_origin(annotation) is not Literal:
            yield from _sections(arg)


def _reachable(section: type[Section], found: list[type[Section]]) -> list[type[Section]]:
    """``section`` and all sections under it, each once, a parent before its children."""
    if section not in found:
        found.append(section)
        for field in section.model_fields.values():
            for child in _sections(field.annotation):
                _reachable(child, found)
    return found


def _methods() -> Iterator[str]:
    yield "## Methods"
    yield ""
    yield "A method is a bundle of defaults for `policy`, `objective` and `sampling`; what is given goes first, and a"
    yield "section of another `kind` takes no defaults. Where a section has a `kind`, its plain name stands for it with"
    yield "its defaults: `objective.loss: jsd`. [methods.md](methods.md) has a section on each method."
    yield ""
    heading, *rows = method_rows()
    yield f"| {' | '.join(heading)} |"
    yield "|---|---|---|---|---|---|"
    for name, policy, loss, title, paper, recipe in rows:
        yield f"| `{name}` | {policy} | {loss} | {title} | {paper or '-'} | [{recipe}](../{recipe}) |"


def page() -> str:
    """The whole page."""
    lines, listed = [_HEAD, *_methods()], set[str]()
    for section in _reachable(RunConfig, []):
        lines += ["", f"## {section.__name__}", "", (section.__doc__ or "").strip(), "", *_table(section)]
        lines += _list_of_kinds(section, listed)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    sys.exit(0)

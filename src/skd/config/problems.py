"""What the schema refused, told to the user: place, found, expected, way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from skd.config.credentials import quoted, variable_of_key
from skd.config.document import Document, KeyPath, value_at
from skd.config.methods import with_method
from skd.config.names import children, field_at, has_own_keys, kinds, nearest, nearest_key, owners, tags, takes_name
from skd.config.numbers import ScheduleConfig
from skd.errors import Problem

__all__ = ["problem_of"]

_SECTION = {"model_type", "model_attributes_type", "dict_type"}
_NUMERIC = {"float_type": "a number", "int_type": "a whole number", "int_from_float": "a whole number"}
_EXPECTED = {
    **_NUMERIC,
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "bad_path": "a path without control characters, not empty",
    "tuple_type": "a list",
    **dict.fromkeys(_SECTION, "a mapping of keys to values"),
}


def problem_of(error: ErrorDetails, document: Document) -> Problem | None:
    """The problem that a schema error stands for; None when its value was complained about already."""
    kind, context = error["type"], error.get("ctx") or {}
    path = plain_path(error["loc"], _full(document))
    if any(path[:length] in document.bad for length in range(1, len(path) + 1)):
        return None
    path = (*path, *str(context["key"]).split(".")) if "key" in context else path
    value = value_at(path, document.data)
    if kind == "refused":
        return _problem("SKD-C10", path, f"{dotted(path)} {context['found']}", str(context["remedy"]), document)
    if kind == "extra_forbidden":
        return _unknown(path, document)
    if kind == "missing" and isinstance(path[-1], int):
        return _wrong(path[:-1], "a list of more values", document)
    if kind == "missing":
        return _missing(path, document)
    if kind == "too_short" and value:
        # Its items are wrong, and are complained about themselves.
        return None
    if kind == "union_tag_invalid" and isinstance(value, str):
        return _choice(path, _kinds(path, document), document)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _choice((*path, "kind"), _kinds(path, document), document)
    if kind == "literal_error":
        return _choice(path, _options(str(context.get("expected", ""))), document)
    if kind == "idle_key":
        return _problem("SKD-C10", path, f"{dotted(path[:-1])}.{error['msg']}", str(context["remedy"]), document)
    if kind == "unknown_format":
        return _format(path, document)
    if kind == "too_long":
        return _wrong(path, f"a list of {context.get('max_length')} values", document)
    if kind in _SECTION and (field := field_at(path, _full(document))) is not None and takes_name(field):
        return _wrong(path, f"one of {', '.join(kinds(field.annotation))}, or a mapping with a kind", document)
    if kind in _SECTION and "path" in children(path, _full(document)):
        return _wrong(path, "text, or a mapping of keys to values", document)
    expected = str(context.get("expected", "")) or _EXPECTED.get(kind, error["msg"].lower())
    if kind in _NUMERIC and "schedule" in _tags(path, document):
        expected += ", or a schedule with start and end"
    return _wrong(path, expected, document, out_of_range=kind == "out_of_range")


def _full(document: Document) -> Any:
    """The data with the method's defaults, where a key's neighbours may stand."""
    return with_method(document.data) if isinstance(document.data, Mapping) else document.data


def plain_path(loc: Sequence[int | str], data: Any) -> KeyPath:
    """The error's location as the file has it.

    Taken out is what pydantic puts between the keys: the ``kind`` of a tagged section, whether a number is a schedule,
    and the index of a value that was given alone where a list may stand.
    """
    path: tuple[int | str, ...] = ()
    is_tag = False
    for key in loc:
        if isinstance(key, int) and not isinstance(value_at(path, data), (list, tuple)):
            continue
        field = field_at(path, data) if path and not is_tag else None
        is_tag = field is not None and key in tags(field.annotation) and not has_own_keys(path, data)
        path = path if is_tag else (*path, key)
    return path


def dotted(path: KeyPath) -> str:
    """``("train", "betas", 0)`` as ``train.betas.0``, hidden characters and secrets not shown."""
    return ".".join(_key(str(key)) for key in path) or "the file"


def _key(key: str) -> str:
    return key if key.isidentifier() and variable_of_key(key) else quoted(key)[1:-1]


def describe(value: Any, raw: str | None) -> str:
    """A found value in words, as it was written where that is known."""
    if isinstance(value, bool):
        return f"the boolean {raw or str(value).lower()}"
    if value is None:
        return "empty (null)"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, (int, float)):
        return quoted(raw or str(value))[1:-1]
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"


def _problem(code: str, path: KeyPath, found: str, remedy: str, document: Document) -> Problem:
    return Problem(code, document.place(path), found, remedy)


def _unknown(path: KeyPath, document: Document) -> Problem:
    if having := owners(path, _full(document)):
        kind = value_at((*path[:-1], "kind"), _full(document))
        found = f"{dotted(path)} is an unknown key of kind {kind}"
        remedy = f"remove it, or write {dotted(path[:-1])}.kind: {' or '.join(having)}"
        return _problem("SKD-C05", path, found, remedy, document)
    near = nearest_key(path, _full(document))
    known = ", ".join(sorted(children(path[:-1], _full(document))))
    where = f"under {dotted(path[:-1])}" if path[:-1] else "at the top"
    remedy = f"did you mean {near}?" if near else f"the keys {where} are {known}"
    return _problem("SKD-C05", path, f"{dotted(path)} is an unknown key", remedy, document)


def _missing(path: KeyPath, document: Document) -> Problem:
    field = field_at(path, _full(document))
    doc = (field.description if field else None) or ""
    remedy = f"add {dotted(path)}" + (f" ({doc.rstrip('.')})" if doc else "")
    return _problem("SKD-C17", path[:-1], f"{dotted(path)} is missing", remedy, document)


def _options(expected: str) -> list[str]:
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


def _kinds(path: KeyPath, document: Document) -> list[str]:
    """The kinds that the section at ``path`` may have."""
    field = field_at(path, _full(document))
    return [] if field is None else kinds(field.annotation)


def _tags(path: KeyPath, document: Document) -> set[str]:
    field = field_at(path, _full(document))
    return set() if field is None else tags(field.annotation)


def _choice(path: KeyPath, options: list[str], document: Document) -> Problem:
    """A value that is none of a few names, or a tagged section that does not say its kind."""
    value, expected = value_at(path, document.data), ", ".join(options)
    if path[-1] == "kind" and value is None:
        found, given = f"{dotted(path)} is missing", value_at(path[:-1], document.data)
        field = field_at(path[:-1], _full(document))
        meant = [] if field is None or not given else kinds(field.annotation, given)
        remedy = f"add kind: {meant[0]}" if len(meant) == 1 else f"add kind, one of {expected}"
        return _problem("SKD-C17", path[:-1], found, remedy, document)
    near = nearest(value, options) if isinstance(value, str) else None
    found = f"{dotted(path)} is {describe(value, document.raw.get(path))}, expected one of {expected}"
    return _problem("SKD-C05", path, found, f"did you mean {near}?" if near else f"write {options[0]}", document)


def _format(path: KeyPath, document: Document) -> Problem:
    found = f"format is {describe(value_at(path, document.data), None)}, and this release reads format 1"
    return _problem("SKD-C16", path, found, "install a newer skd, or write format: 1", document)


def _wrong(path: KeyPath, expected: str, document: Document, out_of_range: bool = False) -> Problem:
    value, raw = value_at(path, document.data), document.raw.get(path)
    found = f"{dotted(path)} is {describe(value, raw)}, expected {expected}"
    if out_of_range:
        code = "SKD-C13" if path[-1] == "seed" else "SKD-C07"
        return _problem(code, path, found, _example(path, document), document)
    if expected.startswith("text") and isinstance(value, (bool, int, float)):
        shown = raw or str(value)
        return _problem("SKD-C06", path, found, f'write {dotted(path)}: "{shown}" in quotes', document)
    if isinstance(value, str) and "number" in expected:
        return _problem("SKD-C03", path, found, _number(path, value, expected, document), document)
    return _problem("SKD-C06", path, found, _example(path, document), document)


def _number(path: KeyPath, text: str, expected: str, document: Document) -> str:
    try:
        number = float(text)
    except ValueError:
        return _example(path, document)
    if expected.startswith("a whole number") and number.is_integer() and abs(number) < 1e15:
        return f"write {dotted(path)}: {int(number)}, without quotes, dot or exponent"
    return _example(path, document)


def _example(path: KeyPath, document: Document) -> str:
    """A remedy that shows a value which is right: the field's default."""
    field = field_at(path, _full(document))
    if isinstance(path[-1], int) and (keys := children(path, _full(document))):
        return f"give it the keys {', '.join(keys)}"
    if field is None or field.is_required() or field.default is None:
        doc = (field.description if field else None) or ""
        return f"correct {dotted(path)}" + (f" ({doc.rstrip('.')})" if doc else "")
    default = field.default
    if takes_name(field):
        return f"write for example {dotted(path)}: {default.kind}"
    if isinstance(default, (str, int, float)):
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        return f"write for example {dotted(path)}: {shown}"
    if isinstance(default, tuple):
        return f"write for example {dotted(path)}: {list(default)}"
    if isinstance(default, ScheduleConfig):
        return f"write for example {dotted(path)}: {{start: {default.start}, end: {default.end}}}"
    return f"write the keys of {dotted(path)} on lines of their own, or leave it out"

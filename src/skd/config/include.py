"""A config file made of parts: ``include`` names other files, and what is written in the file itself goes over them.

The result is one document, as if it had been written in one file; every value keeps the place it was written at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skd.config.credentials import quoted
from skd.config.document import Document, KeyPath, read_document, read_text
from skd.errors import ConfigError, Problem

__all__ = ["KEY", "read_with_parts"]

KEY = "include"
MAX_FILES = 50
"""Files of one config, each counted as often as it is read."""


def read_with_parts(path: Path) -> Document:
    """The document of a config file and of the files that it includes, relative to the folder of the one that says so.

    Of two files the later one goes over the earlier one, key by key; a list replaces a list, and a section of another
    kind takes nothing of the one below. The file itself goes over all it includes.

    Raises ConfigError (SKD-C01) when ``path`` itself cannot be read. What is wrong with a part, such as a file that
    includes itself, is in the document's problems, at the line that names it.
    """
    return _read(path, read_text(path), (), [])


def _read(path: Path, text: str, above: tuple[Path, ...], opened: list[Path]) -> Document:
    opened.append(path)
    document = read_document(quoted(str(path), 200)[1:-1], text)
    if not isinstance(document.data, dict) or KEY not in document.data:
        return document
    whole = Document(document.name, data={})
    chain = (*above, path.resolve())
    for keys, name in _named(document):
        place = document.place(keys)
        if (part := _part(path.parent / name, place, chain, opened, whole)) is not None:
            _lay_over(whole, part)
    del document.data[KEY]
    document.forget((KEY,))
    _lay_over(whole, document)
    return whole


def _named(document: Document) -> list[tuple[KeyPath, str]]:
    """The key path and the text of every file named; what names none becomes a problem."""
    value = document.data[KEY]
    entries = (
        [((KEY, index), item) for index, item in enumerate(value)] if isinstance(value, list) else [((KEY,), value)]
    )
    wrong = [keys for keys, name in entries if not isinstance(name, str) or not name.isprintable() or not name]
    for keys in wrong:
        found = f"{KEY} names no file here"
        document.problems.append(Problem("SKD-C06", document.place(keys), found, f"write {KEY}: [part.yaml]"))
    return [(keys, name) for keys, name in entries if keys not in wrong]


def _part(path: Path, place: str, chain: tuple[Path, ...], opened: list[Path], whole: Document) -> Document | None:
    """The document of one included file; None with the problem noted in ``whole`` when it cannot be had."""
    shown = quoted(str(path), 200)[1:-1]
    try:
        if path.resolve() in chain:
            remedy = "remove one of the two lines"
            whole.problems.append(Problem("SKD-C10", place, f"{shown} includes itself, over this line", remedy))
            return None
        if len(opened) >= MAX_FILES:
            found = f"more than {MAX_FILES} files are included"
            whole.problems.append(Problem("SKD-C09", place, found, "include fewer files"))
            return None
        text = read_text(path)
    except (ConfigError, OSError, RuntimeError) as error:
        causes = error.problems if isinstance(error, ConfigError) else [Problem("", "", "cannot be read", "check it")]
        whole.problems += [Problem("SKD-C01", place, f"{shown} {cause.found}", cause.remedy) for cause in causes]
        return None
    return _read(path, text, chain, opened)


def _lay_over(below: Document, above: Document) -> None:
    """Put ``above`` over ``below``, in place."""
    below.problems += above.problems
    below.unsound |= above.unsound
    below.partial |= above.partial
    if isinstance(above.data, dict):
        below.bad |= above.bad
        below.data = _merged(below, (), below.data, above.data)
        below.places |= above.places
        below.raw |= above.raw


def _merged(below: Document, path: KeyPath, low: Any, high: Any) -> Any:
    if not isinstance(low, dict) or not isinstance(high, dict) or _another_kind(low, high):
        below.forget(path)
        return high
    inner = {key: _merged(below, (*path, key), low[key], value) if key in low else value for key, value in high.items()}
    return {**low, **inner}


def _another_kind(low: dict[str, Any], high: dict[str, Any]) -> bool:
    return "kind" in high and high["kind"] != low.get("kind")

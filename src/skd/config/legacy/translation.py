"""What translating another tool's config file needs: values put under our keys, with the place they came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from skd.config.credentials import quoted, variable_of_key
from skd.config.document import Document, KeyPath, value_at
from skd.errors import Problem

__all__ = ["Handler", "Translation"]


class Translation:
    """Reads one document and writes another. What a key of the old one means is told by a table of handlers."""

    def __init__(self, old: Document) -> None:
        self._old = old
        self.new = Document(old.name, data={}, problems=old.problems, partial=old.partial)
        self.notes: list[str] = []
        """One line for every key that changes nothing here, with what to do instead."""

    def get(self, *path: str) -> Any:
        """A value of the old document, or None."""
        return value_at(path, self._old.data)

    def put(self, path: str, value: Any, source: KeyPath) -> None:
        """Set the dotted ``path`` of the new document; errors about it will name the place of ``source``."""
        *above, last = path.split(".")
        section = self.new.data
        for key in above:
            section = section.setdefault(key, {})
        section[last] = value
        for length in range(1, len(above) + 2):
            self.new.places.setdefault(tuple(path.split(".")[:length]), self._old.place(source))
        if source in self._old.bad:
            self.new.bad.add(tuple(path.split(".")))

    def note(self, source: KeyPath, text: str) -> None:
        """Say that a key changes nothing."""
        self.notes.append(f"{self._old.place(source)}: {'.'.join(map(str, source))} {text}")

    def refuse(self, source: KeyPath, found: str, remedy: str, code: str = "SKD-C10") -> None:
        """A key or value that has no meaning here."""
        name = ".".join(map(str, source))
        self.new.problems.append(Problem(code, self._old.place(source), f"{name} {found}", remedy))

    def filled(self, template: str, values: Mapping[str, object], source: KeyPath) -> str:
        """``{name}`` replaced by its value; nothing else of Python's format language is known."""

        def value_of(match: re.Match[str]) -> str:
            if match.group(1) in values:
                return str(values[match.group(1)])
            known = ", ".join(f"{{{name}}}" for name in values)
            self.refuse(source, f"holds {quoted(match.group(0))}", f"only {known} are filled in; write the path out")
            return match.group(0)

        return re.sub(r"\{([^{}]*)\}", value_of, template)

    def walk(self, section: tuple[str, ...], handlers: Mapping[str, Handler]) -> None:
        """Handle every key of a section of the old document; an unknown one is refused with the nearest known."""
        values = self.get(*section)
        if not isinstance(values, Mapping):
            self.refuse(section, "is no mapping of keys to values", "write its keys on lines of their own", "SKD-C06")
            return
        for key, value in values.items():
            path = (*section, key)
            if variable := variable_of_key(str(key)):
                remedy = f"remove it and set the environment variable {variable}"
                self.refuse(path, "is a secret, and a config file is saved and shared with the run", remedy, "SKD-C11")
            elif key in handlers:
                handlers[key](self, path, value)
            else:
                from skd.config.names import nearest

                near = nearest(str(key), handlers)
                remedy = f"did you mean {near}?" if near else f"the keys here are {', '.join(sorted(handlers))}"
                self.refuse(path, "is an unknown key", remedy, "SKD-C05")


Handler = Callable[[Translation, KeyPath, Any], None]
"""Takes one key of the old document: puts its value somewhere, notes that it changes nothing, or refuses it."""

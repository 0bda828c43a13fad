"""What stands between a file and its rows: records with their places, and the problems of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from skd.errors import Problem

__all__ = ["OnEmpty", "Record", "RowProblems", "kind_of", "names_of"]

SHOWN = 5
"""Problems of one kind that are listed; the others are counted."""

OnEmpty = Literal["error", "keep"]
Record = tuple[str, Any]
"""Where a row stands, and the value that stands there."""


class RowProblems:
    """Problems of the rows of one source by kind: the first few are kept in full, the rest as a count."""

    def __init__(self, place: str, on_empty: OnEmpty = "error") -> None:
        self._place = place
        self.on_empty = on_empty
        """Whether an empty text is a problem."""
        self._kinds: dict[tuple[str, str], list[Problem]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._last = ""
        self.num_rows = 0
        """Rows with a problem; a row may have several, which are added one after the other."""

    def add(self, problem: Problem) -> None:
        kind = (problem.code, problem.remedy)
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN:
            self._kinds.setdefault(kind, []).append(problem)
        self.num_rows += problem.place != self._last
        self._last = problem.place

    def shown(self) -> Sequence[Problem]:
        """What the user is told, in the order of the source."""
        shown: list[Problem] = []
        for (code, remedy), problems in self._kinds.items():
            shown += problems
            count = self._counts[code, remedy]
            if count > SHOWN:
                found = f"{count - SHOWN} more rows like these, {count} in all"
                shown.append(Problem(code, self._place, found, remedy))
        return shown


def names_of(row: dict[str, Any]) -> str:
    """The keys of a row for a message."""
    names = [repr(name) for name in row]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "no fields") + more


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "an object" if isinstance(value, dict) else f"a {type(value).__name__}")

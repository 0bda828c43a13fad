"""From a record to a row: which fields hold the texts, and whether they are texts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from skd.config.sources import PROMPT, RESPONSE
from skd.data.file_tasks import FileTask
from skd.data.own_tasks import find_task
from skd.data.records import RowProblems, kind_of, names_of
from skd.data.rows import Row, Turn
from skd.errors import Problem
from skd.text import shortened

if TYPE_CHECKING:
    from skd.config import FileSource, HubSource, RoutedTeacher

__all__ = ["Fields", "Messages", "TaskRows", "routed", "shape_of", "text_fields"]

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 1 << 24
"""Of one text of a row."""
_USUAL = (PROMPT, RESPONSE)
_RELEASED = (("instruction", "response"), ("dialogue", "summary"))
"""Fields of the files of the paper's code."""
_MESSAGES = "messages"


@dataclass(frozen=True)
class Fields:
    """Rows with a field for the prompt and, unless it is None, one for the response."""

    prompt: str
    response: str | None

    def row(self, place: str, record: dict[str, Any], problems: RowProblems) -> Row | None:
        """The row of a record, or None after its problems were noted."""
        prompt = _field(place, record, "prompt_field", self.prompt, problems)
        if self.response is None:
            return None if prompt is None else Row(prompt, None)
        response = _field(place, record, "response_field", self.response, problems)
        return None if prompt is None or response is None else Row(prompt, response)


@dataclass(frozen=True)
class Messages:
    """Rows with a field that holds a conversation: a list of {role, content}."""

    field: str

    def row(self, place: str, record: dict[str, Any], problems: RowProblems) -> Row | None:
        """The row of a record, or None after its problems were noted. Where the user has the last word, no response."""
        turns = self._turns(place, record, problems)
        if turns is None or not self._in_order(place, turns, problems):
            return None
        response = turns.pop().content if turns[-1].role == "assistant" else None
        return Row(turns[-1].content, response, tuple(turns[:-1]))

    def _turns(self, place: str, record: dict[str, Any], problems: RowProblems) -> list[Turn] | None:
        if self.field not in record:
            found = f"no field {self.field!r}; the row has {names_of(record)}"
            problems.add(Problem("SKD-D04", place, found, "set messages_field to the right name"))
            return None
        messages = record[self.field]
        if not isinstance(messages, list) or not messages:
            found = "is an empty list" if messages == [] else f"is {kind_of(messages)}, not a list of messages"
            remedy = f"make every {self.field!r} a list of {{role, content}}"
            problems.add(Problem("SKD-D04", place, f"field {self.field!r} {found}", remedy))
            return None
        turns = [self._turn(place, i, message, problems) for i, message in enumerate(messages)]
        return None if None in turns else [turn for turn in turns if turn is not None]

    def _turn(self, place: str, index: int, message: Any, problems: RowProblems) -> Turn | None:
        name = f"{self.field}[{index}]"
        if not isinstance(message, dict):
            found = f"field {name!r} is {kind_of(message)}, not an object with role and content"
            problems.add(Problem("SKD-D04", place, found, f"make every {self.field!r} a list of {{role, content}}"))
            return None
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant"):
            found = f"field '{name}.role' is {role!r}" if isinstance(role, str) else f"{name} has no role"
            problems.add(Problem("SKD-D04", place, found, "use the roles system, user and assistant"))
            return None
        # An empty system message is a way to switch off the one that a template would put there.
        if role == "system" and content == "":
            return Turn("system", "")
        text = _text(place, f"{name}.content", f"{self.field}[].content", content, problems)
        return None if text is None else Turn(role, text)

    def _in_order(self, place: str, turns: list[Turn], problems: RowProblems) -> bool:
        roles = [turn.role for turn in turns]
        spoken = roles[1:] if roles[0] == "system" else roles
        if spoken and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(spoken)):
            return True
        shown = ", ".join(roles[:8]) + (", ..." if len(roles) > 8 else "")
        remedy = "let user and assistant speak in turn, the user first, after at most one system message"
        problems.add(Problem("SKD-D04", place, f"field {self.field!r} has the roles {shown}", remedy))
        return False


@dataclass(frozen=True)
class TaskRows:
    """Rows as a task reads them: the first of its forms that has all its fields."""

    task: FileTask

    def row(self, place: str, record: dict[str, Any], problems: RowProblems) -> Row | None:
        """The row of a record, or None after its problems were noted."""
        shape = self.task.shape(record)
        if shape is None:
            forms = ", or ".join(" + ".join(shape.fields) for shape in self.task.shapes)
            found = f"the row has {names_of(record)}; the task {self.task.name} reads {forms}"
            problems.add(Problem("SKD-D04", place, found, "rename the fields, or write a task file of your own"))
            return None
        row = {name: _number_as_text(record[name]) for name in shape.fields}
        texts = {name: _field(place, row, "task", name, problems) for name in shape.fields}
        known = {name: text for name, text in texts.items() if text is not None}
        return Row(shape.prompt.fill(known), shape.reference.fill(known)) if len(known) == len(texts) else None


def _number_as_text(value: Any) -> Any:
    """Some data sets hold their answers as numbers, and whole ones as 145.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def routed(row: Row, place: str, record: dict[str, Any], teacher: RoutedTeacher, problems: RowProblems) -> Row | None:
    """The row with the name of its teacher, or None after a problem of that was noted. A number counts as its text."""
    if teacher.route not in record:
        found = f"no field {teacher.route!r}, which names the row's teacher; the row has {names_of(record)}"
        problems.add(Problem("SKD-D04", place, found, "add it, or set teacher.route to the right name"))
        return None
    name = _number_as_text(record[teacher.route])
    if not isinstance(name, str) or name not in teacher.by:
        given = repr(shortened(name, 60)) if isinstance(name, str) else kind_of(name)
        found = f"field {teacher.route!r} is {given}, expected one of teacher.by: {', '.join(map(repr, teacher.by))}"
        remedy = f"write one of these for every {teacher.route!r}, or add the teacher to teacher.by"
        problems.add(Problem("SKD-D04", place, found, remedy))
        return None
    return replace(row, route=name)


def text_fields(source: FileSource) -> set[str]:
    """Every field of a source that may hold a text, named or found without being named."""
    names = {*_USUAL, *_RELEASED[0], *_RELEASED[1], source.prompt_field}
    if source.response_field is not None:
        names.add(source.response_field)
    if source.task is not None:
        names.update(name for shape in find_task(source.task).shapes for name in shape.fields)
    return names


def shape_of(source: FileSource | HubSource, first: Any) -> Fields | Messages | TaskRows:
    """The shape of the rows of a source, of which ``first`` is the first record.

    Fields that the source names are taken as they are named. Where it names none and the usual ones are not there, the
    fields of the paper's files and ``messages`` are looked for.
    """
    if source.task is not None:
        return TaskRows(find_task(source.task))
    if source.messages_field is not None:
        return Messages(source.messages_field)
    named = Fields(source.prompt_field, source.response_field)
    unnamed = named.prompt == _USUAL[0] and named.response in (_USUAL[1], None)
    if not unnamed or not isinstance(first, dict):
        return named
    for prompt, response in (_USUAL, *_RELEASED):
        if prompt in first and (named.response is None or response in first):
            return Fields(prompt, None if named.response is None else response)
    return Messages(_MESSAGES) if isinstance(first.get(_MESSAGES), list) else named


def _field(place: str, row: dict[str, Any], option: str, name: str, problems: RowProblems) -> str | None:
    """The text of a field, or None after its problem was noted."""
    if name in row:
        return _text(place, name, name, row[name], problems)
    way_out = ", or to null if the data has no responses" if option == "response_field" else ""
    found, remedy = f"no field {name!r}; the row has {names_of(row)}", f"set {option} to the right name{way_out}"
    problems.add(Problem("SKD-D04", place, found, remedy))
    return None


def _text(place: str, name: str, kind: str, text: Any, problems: RowProblems) -> str | None:
    """``text`` if it is clean text, or None after its problem was noted; ``kind`` names all fields like it."""
    if not isinstance(text, str):
        problems.add(
            Problem("SKD-D04", place, f"field {name!r} is {kind_of(text)}, not text", f"make every {kind!r} text")
        )
        return None
    if not text.strip() and problems.on_empty == "error":
        remedy = f"fill or remove the rows without {kind!r}, or set data.on_empty to keep"
        problems.add(Problem("SKD-D05", place, f"field {name!r} is empty", remedy))
        return None
    if len(text) > MAX_CHARACTERS:
        found = f"field {name!r} has {len(text):,} characters, more than {MAX_CHARACTERS:,}"
        problems.add(Problem("SKD-D17", place, found, "shorten or remove it; no model reads so much at once"))
        return None
    bad = next((i for i, character in enumerate(text) if character == "\0" or "\ud800" <= character <= "\udfff"), None)
    if bad is not None:
        found = f"field {name!r} holds U+{ord(text[bad]):04X} at character {bad}, which is no text"
        problems.add(Problem("SKD-D03", place, found, "remove NUL characters and lone surrogates"))
        return None
    return text

"""Finding a task by what the user wrote: a name, a language pair, a YAML file or a Python file of their own."""

from __future__ import annotations

import difflib
import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Annotated, Any

from pydantic import Field, ValidationError

from skd.config.document import Document, read_document, read_text
from skd.config.fields import Count, Section, Text
from skd.data.file_tasks import FILE_TASKS, FileTask, MetricName, Shape, translation
from skd.data.prompt_template import Template
from skd.errors import ConfigError, Problem

__all__ = ["TaskFile", "find_task"]

_PlainText = Annotated[Text, Field(min_length=1)]


class TaskFile(Section):
    """A task of one's own, as a YAML file."""

    prompt: _PlainText
    """The prompt; names in braces, such as {question}, are fields of a row."""
    reference: _PlainText
    """The reference response, likewise."""
    metric: MetricName
    """exact, number, math, rouge or translation."""
    name: _PlainText | None = None
    """Name in results; the file's name without its suffix when left out."""
    stop_strings: tuple[_PlainText, ...] = ()
    """Texts that end a response, besides the end tokens."""
    max_prompt_tokens: Count = 1024
    """Longest prompt."""
    max_new_tokens: Count = 512
    """Longest response."""


def find_task(spec: str) -> FileTask:
    """The task that ``spec`` says: a name, ``translation:GERMAN-ENGLISH``, a .yaml file, or a .py file.

    A Python file defines ``task``, a ``skd.data.FileTask``. It is run, as any script that one starts oneself.

    Raises ConfigError when there is no such task, or its file cannot be used.
    """
    name, _, pair = spec.partition(":")
    if name == "translation" and pair:
        return translation(pair)
    if spec in FILE_TASKS:
        return FILE_TASKS[spec]
    if spec.endswith((".yaml", ".yml")):
        return _from_yaml(Path(spec))
    if spec.endswith(".py"):
        return _from_python(Path(spec))
    near = (difflib.get_close_matches(spec, FILE_TASKS, n=1, cutoff=0.0) or ["gsm8k"])[0]
    found = f"{spec!r} is none of {', '.join(FILE_TASKS)}"
    raise ConfigError(Problem("SKD-E19", "task", found, f"write {near}, or name a .yaml or .py file"))


def _from_yaml(path: Path) -> FileTask:
    document = read_document(str(path), read_text(path))
    if document.problems:
        raise ConfigError(document.problems)
    try:
        file = TaskFile.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError([_problem(detail, document) for detail in error.errors()]) from None
    shape = Shape(Template(file.prompt), Template(file.reference))
    if not shape.prompt.fields:
        found = "the prompt names no field, so that all prompts would be the same"
        raise ConfigError(Problem("SKD-C10", document.place(("prompt",)), found, "write one, such as {question}"))
    if not shape.reference.fields:
        found = f"the reference names no field, and the metric {file.metric} compares with it"
        raise ConfigError(Problem("SKD-C10", document.place(("reference",)), found, "write one, such as {answer}"))
    return FileTask(
        name=file.name or path.stem,
        shapes=(shape,),
        metric=file.metric,
        stop_strings=file.stop_strings,
        max_prompt_tokens=file.max_prompt_tokens,
        max_new_tokens=file.max_new_tokens,
    )


def _problem(detail: Any, document: Document) -> Problem:
    where = ".".join(map(str, detail["loc"])) or "the file"
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    remedy = f"a task file has the keys {', '.join(TaskFile.model_fields)}"
    return Problem("SKD-C06", document.place(detail["loc"]), f"{where}: {message}", remedy)


class _Source(SourceFileLoader):
    """Without a cache of compiled code: it takes a file of the same size and second for the one it knows."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _from_python(path: Path) -> FileTask:
    if not path.is_file():
        raise ConfigError(Problem("SKD-C01", str(path), "no such file", "correct the path of the task"))
    name = f"skd_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        found = f"raised {type(error).__name__}: {error}"
        raise ConfigError(Problem("SKD-C01", str(path), found, "correct the file")) from error
    task = getattr(module, "task", None)
    if not isinstance(task, FileTask):
        remedy = "write task = skd.data.FileTask(...) in it"
        raise ConfigError(Problem("SKD-C01", str(path), "defines no task", remedy))
    return task

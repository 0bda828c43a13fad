"""The tasks that can be made, by the names that ``skd evaluate --task`` knows them by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from skd.data.file_tasks import translation
from skd.data.make import descriptions, mathematics, word_problems
from skd.data.make.catalogues import catalogue_pairs
from skd.data.make.items import Item, shuffled
from skd.data.make.languages import LANGUAGES, Language
from skd.data.make.machine import Machine
from skd.data.make.template_pairs import template_pairs
from skd.errors import ConfigError, Problem, RemoteError

__all__ = ["NAMES", "Maker", "find_maker"]


@dataclass(frozen=True)
class Maker:
    """How the rows of one task are made."""

    folder: str
    """Name of its folder."""
    title: str
    about: str
    """What the rows are, for the card."""
    items: Callable[[int, Machine], Iterable[Item]]
    """(seed, machine) -> items in the order in which they are taken."""


_GSM8K = Maker(
    "gsm8k",
    "Arithmetic word problems",
    "`question` and `answer`, as the task `gsm8k` reads them. Drawn from templates; every equation of an answer was\n"
    "computed again, and rows where one does not hold were left out.",
    lambda seed, _: word_problems.problems(seed),
)
_MATH = Maker(
    "math",
    "Mathematics with worked solutions",
    "`problem` and `solution`, as the task `math` reads them; the answer stands in `\\boxed{}`.",
    lambda seed, _: mathematics.problems(seed),
)
_DIALOGSUM = Maker(
    "dialogsum",
    "Texts and their summary in a line",
    "`dialogue` and `summary`, as the task `dialogsum` reads them. These are no dialogues: long descriptions of\n"
    "Debian packages, and the line by which their maintainers sum them up.",
    lambda seed, machine: shuffled(descriptions.summaries(machine), seed),
)
NAMES = ("gsm8k", "math", "dialogsum", "translation", "translation:LANGUAGE-English")


def find_maker(task: str) -> Maker:
    """The maker of a task. Raises ConfigError (SKD-E19) for a task or a language pair that has none."""
    name, _, pair = task.partition(":")
    if name == "translation":
        return _translation(pair or "Assamese-English")
    makers = {"gsm8k": _GSM8K, "math": _MATH, "dialogsum": _DIALOGSUM}
    if task not in makers:
        found = f"{task!r} cannot be made"
        raise ConfigError(Problem("SKD-E19", "task", found, f"write one of {', '.join(NAMES)}"))
    return makers[task]


def _translation(pair: str) -> Maker:
    first, _, second = pair.partition("-")
    if first not in LANGUAGES or second != "English":
        remedy = f"write translation:LANGUAGE-English with one of {', '.join(LANGUAGES)}"
        raise ConfigError(Problem("SKD-E19", "task", f"no sources are known for {pair!r}", remedy))
    return Maker(
        f"{first}-{second}".lower(),
        f"{first} sentences in {second}",
        f"`source` and `target`, as the task `{translation(pair).name}` reads them: texts of programs, and word\n"
        "problems with their solutions.",
        lambda seed, machine: shuffled(_sentence_pairs(LANGUAGES[first], machine), seed),
    )


def _sentence_pairs(language: Language, machine: Machine) -> Iterator[Item]:
    """Program texts and word problems; the latter need pip and may be missing where the former are there."""
    found = list(catalogue_pairs(language, machine))
    try:
        templates = list(template_pairs(language, machine))
    except RemoteError:
        if not found:
            raise
        templates = []
    return chain(found, templates)

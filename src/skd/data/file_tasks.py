"""The tasks whose rows come from files: the paper's four (Xu et al. 2025, arXiv 2410.11325, section 4), programs, and
one's own.

A task is a value: how rows become prompts and references, where responses stop, how long they may be, and the measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

from skd.data.prompt_template import Template
from skd.errors import ConfigError, Problem

__all__ = ["FILE_TASKS", "METRICS", "FileTask", "ItemScore", "MetricName", "Shape", "translation"]

MetricName = Literal["exact", "number", "math", "rouge", "translation", "code", "completion"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
"""What can be measured; ``skd.evaluate.metrics`` says how."""


class ItemScore(Protocol):
    """A measure of one's own: the score of one response, from 0 to 1."""

    def __call__(self, response: str, reference: str) -> float: ...


@dataclass(frozen=True)
class Shape:
    """One form that rows may have: it fits a row which has all fields of both templates."""

    prompt: Template
    reference: Template

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that a row must have."""
        return tuple(dict.fromkeys(self.prompt.fields + self.reference.fields))


@dataclass(frozen=True)
class FileTask:
    """A task over rows of a file."""

    name: str
    shapes: tuple[Shape, ...]
    """Forms of rows; the first that fits is used."""
    metric: MetricName | ItemScore
    stop_strings: tuple[str, ...] = ()
    """Texts that end a response, besides the end tokens."""
    max_prompt_tokens: int = 1024
    max_new_tokens: int = 512
    source: Template | None = field(default=None)
    """Finds the text to translate in a prompt, for measures that look at it: its field is ``source``."""

    def shape(self, record: Mapping[str, Any]) -> Shape | None:
        """The form of a row; None when it fits none."""
        return next((shape for shape in self.shapes if all(name in record for name in shape.fields)), None)

    def source_of(self, prompt: str) -> str:
        """The text that a prompt asks to translate; the whole prompt when it is not of the task's form."""
        found = self.source.read(prompt) if self.source else None
        return found["source"] if found else prompt


def _shapes(*forms: tuple[str, str]) -> tuple[Shape, ...]:
    return tuple(Shape(Template(prompt), Template(reference)) for prompt, reference in forms)


_FINISHED = ("{instruction}", "{response}")
"""Rows of the released files: the instruction is the whole prompt."""
_WORDED = {"asdiv": ("{body} {question}", "{answer}"), "svamp": ("{Body} {Question}", "{Answer}")}


def _questions(before: str, after: str = "") -> tuple[Shape, ...]:
    """Forms of word problems: released files, ASDiv, SVAMP, then GSM8K and GSM-plus."""
    forms = (*_WORDED.values(), ("{question}", "{answer}"))
    return _shapes(_FINISHED, *((before + question + after, answer) for question, answer in forms))


_MATH_INSTRUCTION = (
    "Solve the following math problem step-by-step.\nSimplify your answer as much as possible. "
    "Present your final answer as \\boxed{Your Answer}.\n"
)
"""The instruction of openbmb/UltraInteract_sft."""

_GSM8K = FileTask(
    name="gsm8k",
    shapes=_questions("Q: ", " \n\nA:"),
    metric="number",
    stop_strings=("\n\n",),
    max_prompt_tokens=256,
    max_new_tokens=512,
)
_DIALOGSUM = FileTask(
    name="dialogsum",
    shapes=_shapes(_FINISHED, ("Summarize the following dialogue.\n\n{dialogue}\n\nSummary:", "{summary}")),
    metric="rouge",
    stop_strings=("\nuser", "\n"),
    max_prompt_tokens=1024,
    max_new_tokens=128,
)
_MATH = FileTask(
    name="math",
    shapes=(*_shapes((_MATH_INSTRUCTION + "{problem}", "{solution}")), *_questions(_MATH_INSTRUCTION)),
    metric="math",
    stop_strings=("\nSolve the following math problem step-by-step.", "\n\n\n\n"),
    max_prompt_tokens=1024,
    max_new_tokens=1024,
)


_PROGRAM_PROMPT = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
    "```\n{prompt}\n```"
)
_PROGRAM_ENDS = ("\nif __name__", "\ndef main(", "\nprint(")
_HUMANEVAL = FileTask(
    name="humaneval",
    shapes=_shapes((_PROGRAM_PROMPT, "{canonical_solution}")),
    metric="code",
    max_prompt_tokens=2048,
    max_new_tokens=768,
)
"""EvalPlus's files of problems, with its instruction and its ends (arXiv 2305.01210, release 0.3.1)."""
_HUMANEVAL_BARE = replace(
    _HUMANEVAL,
    name="humaneval_bare",
    shapes=_shapes(("{prompt}", "{canonical_solution}")),
    metric="completion",
    stop_strings=(*_PROGRAM_ENDS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "),
)


def translation(pair: str = "Assamese-English") -> FileTask:
    """Translation from the first language of ``pair`` to the second: ``German-English``. The paper's pair by default.

    Raises ConfigError (SKD-E19) unless there are two names with a hyphen between them.
    """
    languages = [name.strip() for name in pair.split("-")]
    if len(languages) != 2 or not all(name.replace(" ", "").isalpha() for name in languages):
        remedy = "write two names with a hyphen between them, such as translation:German-English"
        raise ConfigError(Problem("SKD-E19", "task", f"{pair!r} names no two languages", remedy))
    first, second = languages
    prompt = (
        f"Translate {first} sentence into {second}. This is the {first} sentence: {{source}} "
        f"Here is the {second} translation:"
    )
    return FileTask(
        name="translation" if pair == "Assamese-English" else f"translation:{first}-{second}",
        shapes=_shapes(_FINISHED, (prompt, "{target}"), (prompt.replace("{source}", "{src}"), "{tgt}")),
        metric="translation",
        stop_strings=("\n",),
        max_prompt_tokens=256,
        max_new_tokens=256,
        source=Template(prompt),
    )


FILE_TASKS: Mapping[str, FileTask] = {
    "gsm8k": _GSM8K,
    "dialogsum": _DIALOGSUM,
    # What the paper's scripts send: the dialogue alone, nothing that says what to do with it.
    "dialogsum_bare": replace(_DIALOGSUM, name="dialogsum_bare", shapes=_shapes(("{dialogue}", "{summary}"))),
    "translation": translation(),
    "math": _MATH,
    "humaneval": _HUMANEVAL,
    "mbpp": replace(_HUMANEVAL, name="mbpp"),
    # The prompt alone, for a model that completes texts.
    "humaneval_bare": _HUMANEVAL_BARE,
    "mbpp_bare": replace(_HUMANEVAL_BARE, name="mbpp_bare", stop_strings=(*_PROGRAM_ENDS, '\n"""', "\nassert")),
}
"""The tasks by name. ``translation:GERMAN-ENGLISH`` and files of one's own come on top (``skd.data.find_task``)."""

"""All parts of the check, in order of what they cost: the first ones need no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skd.check.environment import Machine, check_environment, machine
from skd.check.models import Words, check_files, check_model, check_own_teacher, check_same, check_words, roles
from skd.check.output import check_disk, check_output
from skd.check.report import Part, exit_code, require
from skd.check.rows import check_rows
from skd.config import RunConfig, TeacherModel
from skd.model_files import ModelFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from skd.check.rows import Set
    from skd.types import Prompts

__all__ = ["Checked", "check"]

Say = Callable[[Part], None]


@dataclass(frozen=True)
class Checked:
    """What was found, and what a run need not read again."""

    parts: Sequence[Part]
    train: Prompts | Set | None
    """Training prompts as ids; as rows where no model was checked; None when they were not asked for or are wrong."""
    validation: Prompts | Set | None
    summary: str
    """What a run will do; empty when something is wrong."""

    @property
    def exit_code(self) -> int:
        """0, or that of the gravest error."""
        return exit_code(self.parts)

    @property
    def warnings(self) -> list[str]:
        """What a run may go on with, one line each."""
        return [problem.line("warning") for part in self.parts for problem in part.warnings]

    def require(self) -> None:
        """Raise everything that is wrong as one SkdError."""
        require(self.parts)


def check(
    config: RunConfig,
    *,
    say: Say = lambda part: None,
    fail_on_leak: bool = False,
    rows: bool = True,
    models: bool = True,
) -> Checked:
    """Everything that can be known of a run before a weight is read; no problem hides another.

    Args:
        config: a checked configuration.
        say: called with each part as soon as it is finished.
        fail_on_leak: a validation prompt that is also trained on is an error.
        rows: check the data sources; False where prompts are given from elsewhere.
        models: check models, tokenizers, prompts and memory; False where a loaded pair is given.

    Nothing is written and no GPU is touched. Weight files are opened for their headers only.
    """
    parts: list[Part] = []

    def finish(part: Part) -> None:
        parts.append(part)
        say(part)

    output, data = Part("output"), Part("data")
    check_output(output, config)
    finish(output)
    train, validation = check_rows(data, config, fail_on_leak=fail_on_leak) if rows else (None, None)
    finish(data)
    if not models:
        return Checked(parts, train, validation, "")
    environment, here = Part("environment"), machine()
    check_environment(environment, here)
    finish(environment)
    found = _models(config, finish)
    return _prompts(config, here, found, (train, validation), parts, finish)


@dataclass(frozen=True)
class _Models:
    built: Mapping[str, PreTrainedModel]
    words: Words | None


def _models(config: RunConfig, finish: Say) -> _Models:
    """All files first: what is wrong with them is said before torch is loaded."""
    named = {name: (Part(name), model) for name, model in roles(config).items()}
    files: dict[str, ModelFiles | None] = {}
    for name, (part, model) in named.items():
        files[name] = check_files(part, name, model)
        if part.errors:
            finish(part)
    built: dict[str, PreTrainedModel] = {}
    for name, (part, model) in named.items():
        found = files[name]
        if found is None:
            continue
        if name == "teacher":
            check_same(part, model.path, found, files["student"])
        architecture = check_model(part, name, model, found)
        if architecture is not None:
            built[name] = architecture
        finish(part)
    part = Part("tokenizer")
    check_own_teacher(part, config)
    words = check_words(part, config, built)
    if words is not None:
        _rehearse(part, built["student"], words)
    finish(part)
    return _Models(built, words)


def _rehearse(part: Part, student: PreTrainedModel, words: Words) -> None:
    from skd.models.export import rehearse_export

    with part.noting():
        rehearse_export(student.config, student.generation_config, words.tokenizer)


def _prompts(
    config: RunConfig,
    here: Machine,
    found: _Models,
    rows: tuple[Set | None, Set | None],
    parts: list[Part],
    finish: Say,
) -> Checked:
    from skd.check.memory import check_memory, estimate, num_parameters
    from skd.check.prompts import check_prompts, check_template

    prompts: dict[str, Prompts] = {}
    if found.words is not None:
        part = Part("prompts")
        with part.noting():
            first = next((group[0] for group in rows if isinstance(group, list)), None)
            if first is not None:
                check_template(part, config, first, found.words)
            for key, group in zip(("data.train", "data.validation"), rows, strict=True):
                if group is not None:
                    encoded = check_prompts(part, config, key, group, found.words, found.built)
                    prompts |= {} if encoded is None else {key: encoded}
        finish(part)
    if "student" not in found.built:
        return Checked(parts, None, None, "")
    memory = Part("resources")
    student = found.built["student"]
    own = config.teacher is not None and not isinstance(config.teacher, TeacherModel)
    teacher = student if own else found.built.get("teacher")
    check_disk(memory, config, num_parameters(student))
    train = prompts.get("data.train")
    if train is not None:
        check_memory(memory, estimate(config, student, teacher, train), here)
    finish(memory)
    summary = "" if train is None or exit_code(parts) else _summary(config, train)
    # Stored responses go on as they are: with them goes what they hold of the teacher.
    sets = [
        encoded if isinstance(group, list) else group
        for encoded, group in zip((train, prompts.get("data.validation")), rows, strict=True)
    ]
    return Checked(parts, sets[0], sets[1], summary)


def _summary(config: RunConfig, train: Prompts) -> str:
    settings = config.train
    steps = settings.num_steps(len(train))
    alone = config.writers == {"data_set"}
    responses = 1 if alone else config.sampling.responses_per_prompt
    passes = steps * settings.batch_size / len(train)
    text = (
        f"{config.method}: {steps:,} steps of {settings.batch_size:,} prompts, {passes:.3g} passes over {len(train):,}"
    )
    if alone and train.references is not None:
        tokens = round(passes * sum(map(len, train.references)))
        return f"{text}, about {tokens:,} response tokens"
    most = steps * settings.batch_size * responses * config.sampling.max_new_tokens
    return f"{text}, at most {most:,} response tokens"

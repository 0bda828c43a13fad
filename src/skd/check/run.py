"""All parts of the check, in order of what they cost: the first ones need no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skd.check.environment import Machine, check_environment, machine
from skd.check.models import check_own_teacher, roles
from skd.check.output import check_disk, check_output, paths_read
from skd.check.pair import PairFound, check_pair
from skd.check.report import Part, Say, exit_code, require
from skd.check.resume import check_resume
from skd.check.rows import check_rows
from skd.check.server import check_rollouts, check_server
from skd.config import HubConfig, Reading, RunConfig, Sections, ServerTeacher, idle_problems, idle_saves, teachers_of
from skd.errors import ConfigError
from skd.hub import require_access
from skd.recorded import as_recorded

if TYPE_CHECKING:
    from skd.check.rows import Set
    from skd.types import Prompts

__all__ = ["Checked", "check", "check_reading"]


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
        return [line for part in self.parts for line in part.told]

    def require(self) -> None:
        """Raise everything that is wrong as one SkdError."""
        require(self.parts)


def check_reading(
    reading: Reading, *, say: Say = lambda part: None, fail_on_leak: bool = False, allow: Collection[str] = ()
) -> Checked:
    """``check`` of a config file. Of a wrong one, all that does not depend on what is wrong is looked at."""
    if reading.config is not None:
        return check(reading.config, say=say, fail_on_leak=fail_on_leak, allow=allow)
    parts: list[Part] = []

    def finish(part: Part) -> None:
        parts.append(part)
        say(part)

    finish(Part("config", errors=[ConfigError(reading.problems)]))
    _check_sections(reading.sections, finish, fail_on_leak)
    return Checked(parts, None, None, "")


def _check_sections(sections: Sections, finish: Say, fail_on_leak: bool) -> None:
    named = roles(sections.student, sections.teacher)
    rows: tuple[Set | None, Set | None] = (None, None)
    if sections.output is not None:
        output = Part("output")
        check_output(output, sections.output, paths_read(named, sections.data))
        finish(output)
    if sections.data is not None:
        data, batch_size = Part("data"), 1 if sections.train is None else sections.train.batch_size
        rows = check_rows(data, sections.data, batch_size, fail_on_leak=fail_on_leak, teacher=sections.teacher)
        finish(data)
    environment = Part("environment")
    check_environment(environment, machine())
    finish(environment)
    found = check_pair(named, finish)
    if sections.data is not None and found.words is not None:
        from skd.check.prompts import check_prompts

        prompts = Part("prompts")
        check_prompts(prompts, sections.data, rows, found.words)
        finish(prompts)


def check(
    config: RunConfig,
    *,
    say: Say = lambda part: None,
    fail_on_leak: bool = False,
    rows: bool = True,
    models: bool = True,
    allow: Collection[str] = (),
) -> Checked:
    """Everything that can be known of a run before a weight is read; no problem hides another.

    Args:
        config: a checked configuration.
        say: called with each part as soon as it is finished.
        fail_on_leak: a validation prompt that is also trained on is an error.
        rows: check the data sources; False where prompts are given from elsewhere.
        models: check models, tokenizers, prompts and memory; False where a loaded pair is given.
        allow: keys that may differ from those of the run that is already in the output directory.

    Nothing is written and no GPU is touched. Weight files are opened for their headers only.
    """
    config, parts = as_recorded(config), list[Part]()

    def finish(part: Part) -> None:
        parts.append(part)
        say(part)

    if idle := idle_problems(config):
        finish(Part("config", idle=idle))
    output, data = Part("output"), Part("data")
    named = roles(config.student, config.teacher)
    check_output(output, config.output, paths_read(named, config.data))
    finish(output)
    if config.hub is not None:
        finish(_hub(config.hub))
    sets: tuple[Set | None, Set | None] = (None, None)
    if rows:
        size, teacher = config.train.batch_size, config.teacher
        sets = check_rows(data, config.data, size, fail_on_leak=fail_on_leak, teacher=teacher)
    finish(data)
    if not models:
        return Checked(parts, *sets, "")
    environment, here = Part("environment"), machine()
    check_environment(environment, here)
    finish(environment)
    found = check_pair(named, finish)
    prompts = _prompts(config, found, sets, finish)
    resume = Part("resume")
    if check_resume(resume, config, prompts.get("data.train"), found.files, allow):
        finish(resume)
    return _concluded(config, here, found, sets, prompts, parts, finish)


def _hub(hub: HubConfig) -> Part:
    part = Part("hub")
    with part.noting():
        part.facts.append(f"{require_access(hub)} may write to {hub.repo}")
    return part


def _prompts(
    config: RunConfig, found: PairFound, rows: tuple[Set | None, Set | None], finish: Say
) -> Mapping[str, Prompts]:
    """The sets as ids, by key."""
    if found.words is None:
        return {}
    from skd.check.prompts import check_contexts, check_gates, check_prompts, check_references

    part = Part("prompts")
    prompts = check_prompts(part, config.data, rows, found.words)
    check_contexts(part, config, prompts, found.words, found.built)
    check_references(part, config, prompts)
    check_gates(part, config, found.words)
    check_own_teacher(part, config)
    finish(part)
    for key, teacher in teachers_of(config.teacher).items():
        if isinstance(teacher, ServerTeacher):
            finish(check_server(key, teacher, found.words))
    if config.sampling.rollouts is not None:
        finish(check_rollouts(config.sampling.rollouts))
    return prompts


def _concluded(
    config: RunConfig,
    here: Machine,
    found: PairFound,
    rows: tuple[Set | None, Set | None],
    prompts: Mapping[str, Prompts],
    parts: list[Part],
    finish: Say,
) -> Checked:
    """What the run would need, and what it would do."""
    from skd.check.memory import check_memory, estimate_all, num_parameters
    from skd.check.shards import in_shards, processes

    if "student" not in found.built:
        return Checked(parts, None, None, "")
    memory, student = Part("resources"), found.built["student"]
    check_disk(memory, config, num_parameters(student, trained=True))
    train = prompts.get("data.train")
    if train is not None:
        held = estimate_all(config, found.built, train)
        if config.train.sharding != "none":
            held = in_shards(held, config, found.built, processes())
        check_memory(memory, held, here)
        if late := idle_saves(config, len(train)):
            memory.idle.append(late)
    finish(memory)
    summary = "" if train is None or exit_code(parts) else _summary(config, train)
    # Stored responses go on as they are: with them goes what they hold of the teacher.
    sets = [
        encoded if isinstance(group, Sequence) else group
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

"""``skd plan``: a step of a config part by part on a machine, what limits it, and which knob brings what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from skd.check.environment import size_text
from skd.check.memory import estimate_all
from skd.check.models import roles
from skd.check.pair import check_pair
from skd.check.prompts import check_prompts
from skd.check.report import Part, require
from skd.check.rows import check_rows
from skd.config import RunConfig, ServerTeacher, load_config, teachers_of
from skd.errors import ConfigError, Problem
from skd.plan.cost import Cost, step_cost
from skd.plan.knobs import Gain, gains, ms_per_token
from skd.plan.machine import MachineConfig, load_machine
from skd.plan.scale import scale_lines
from skd.plan.shape import Shape
from skd.plan.work import Work
from skd.text import write_text
from skd.types import Prompts

__all__ = ["PlanOptions", "cpu", "plan_lines", "step_lines"]

_GUESS = 0.8
"""Acceptance assumed where none is given."""
_LAST = 20
"""Steps of an earlier run that count."""


@dataclass(frozen=True)
class PlanOptions:
    """What the command line says besides the config."""

    machine: str = "cpu"
    alpha: float | None = None
    run: Path | None = None
    """An earlier run whose acceptance and lengths are taken."""
    response_tokens: float | None = None
    calibrate: bool = False
    scale: bool = False
    """The table of docs/scale.md."""


def plan_lines(config: str | None, overrides: Sequence[str], options: PlanOptions) -> Iterator[str]:
    """What ``skd plan`` prints. Raises SkdError for what is wrong with config, data, models or options."""
    if options.scale:
        yield from scale_lines(load_machine("h100" if options.machine == "cpu" else options.machine))
        return
    machine = cpu(anew=options.calibrate) if options.machine == "cpu" else load_machine(options.machine)
    if config is not None:
        yield from _plan(config, overrides, options, machine)
    elif options.calibrate:
        yield json.dumps(machine.model_dump())
    else:
        raise ConfigError(
            Problem("SKD-L01", "skd plan", "config is missing", "name the YAML file of a run, or --scale")
        )


def _plan(config: str, overrides: Sequence[str], options: PlanOptions, machine: MachineConfig) -> Iterator[str]:
    alpha, tokens = _observed(options)
    base = load_config(config, overrides)
    prompts, shapes, built = _read(base)

    def planned(more: Sequence[str]) -> tuple[RunConfig, Work, int]:
        changed = load_config(config, [*overrides, *more])
        device = "cuda" if machine.overlap else "cpu"
        work = Work.of(changed, shapes, prompts, _GUESS if alpha is None else alpha, device, tokens)
        return changed, work, estimate_all(changed, built, prompts).peak

    yield from step_lines(planned(())[1], machine, guessed=alpha is None)
    found = estimate_all(base, built, prompts)
    yield f"memory: {found.text()}; the machine has {size_text(machine.memory_gib * 2**30)}"
    yield ""
    yield from _gain_lines(gains(planned, machine), planned(())[1], machine)


def cpu(*, anew: bool = False) -> MachineConfig:
    """This machine: as it was measured before with as many threads, otherwise it is measured now and kept."""
    import torch

    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skd" / f"cpu-{torch.get_num_threads()}.yaml"
    )
    with suppress(ConfigError):  # not there, or of another release
        if not anew:
            return load_machine(str(cache))
    from skd.plan.calibrate import calibrated

    machine = calibrated()
    with suppress(OSError):  # it is measured again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_text(cache, json.dumps(machine.model_dump(), indent=1) + "\n")
    return machine


Built = Mapping[str, PreTrainedModel]
"""Models without weights, by role."""


def _read(config: RunConfig) -> tuple[Prompts, Mapping[str, Shape], Built]:
    """Prompts as ids, and the models without a weight; raises what ``skd check`` finds wrong with them."""
    if any(isinstance(teacher, ServerTeacher) for teacher in teachers_of(config.teacher).values()):
        remedy = "plan with teacher.path and read the line of the vLLM server"
        raise ConfigError(Problem("SKD-L01", "teacher", "is on a server, which does not tell its size", remedy))
    data, parts = Part("data"), list[Part]()
    sets = check_rows(data, config.data, config.train.batch_size)
    parts.append(data)
    found = check_pair(roles(config.student, config.teacher), parts.append)
    prompts: Mapping[str, Prompts] = {}
    if found.words is not None:
        words = Part("prompts")
        prompts = check_prompts(words, config.data, sets, found.words)
        parts.append(words)
    require(parts)
    return prompts["data.train"], {role: Shape.of(model) for role, model in found.built.items()}, found.built


def _observed(options: PlanOptions) -> tuple[float | None, float | None]:
    """Acceptance rate and mean length of a response: as given, or as an earlier run had them."""
    if options.run is None:
        return options.alpha, options.response_tokens
    path = options.run / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [row for row in rows if row.get("responses")][-_LAST:]
        kept = [row["acceptance_rate"] for row in rows if row.get("acceptance_rate") is not None]
        length = sum(row["tokens"] for row in rows) / sum(row["responses"] for row in rows)
    except (OSError, ValueError, KeyError, ZeroDivisionError) as error:
        found = f"has no steps that can be read ({type(error).__name__})"
        raise ConfigError(Problem("SKD-L01", str(path), found, "name the output directory of a run")) from error
    alpha = sum(kept) / len(kept) if kept else None
    return (alpha if options.alpha is None else options.alpha), options.response_tokens or length


def step_lines(work: Work, machine: MachineConfig, *, guessed: bool) -> Iterator[str]:
    """The parts of a step as a table."""
    parts = step_cost(work, machine)
    total = sum(parts.values(), Cost())
    kind = "measured rates" if machine.measured else "A MODEL: nothing was run there"
    yield f"one step on {machine.name} ({kind}; {machine.source})"
    prompt, response = (sum(numbers) / len(numbers) for numbers in (work.prompts, work.responses))
    what = f"{len(work.responses)} responses of {response:.0f} tokens after prompts of {prompt:.0f}"
    if work.writer == "interleaved":
        what += f", {work.alpha:.0%} of the drafts kept{' (a guess; give --alpha or --like)' if guessed else ''}"
    yield what
    yield ""
    yield f"{'part':<12} {'seconds':>9} {'share':>6}  limited by"
    for name, cost in parts.items():
        yield f"{name:<12} {cost.total:>9.4f} {cost.total / total.total:>6.0%}  {cost.limit}"
    yield f"{'step':<12} {total.total:>9.4f}         {ms_per_token(work, machine):.3g} ms per response token"
    slowest = max(parts, key=lambda name: parts[name].total)
    yield f"bottleneck: {slowest}, by {parts[slowest].limit}"


def _gain_lines(found: Sequence[Gain], work: Work, machine: MachineConfig) -> Iterator[str]:
    now = ms_per_token(work, machine)
    yield f"{'ms per token':>12} {'time':>6} {'peak':>9}  each knob alone"
    for gain in found:
        peak = "" if gain.peak is None else size_text(gain.peak)
        yield f"{gain.ms_per_token:>12.3g} {gain.ms_per_token / now - 1:>+6.0%} {peak:>9}  {gain.change}"

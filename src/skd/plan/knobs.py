"""What could be turned, and what the cost model says it brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from skd.config import RunConfig, TeacherModel
from skd.config.policy import InterleavedPolicy
from skd.errors import ConfigError
from skd.plan.cost import step_cost
from skd.plan.machine import MachineConfig
from skd.plan.work import Work

__all__ = ["Gain", "gains", "ms_per_token"]

_BLOCKS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
_MORE_KEPT = 0.1


@dataclass(frozen=True)
class Gain:
    """A change of the config, or of what a config leads to, with its cost."""

    change: str
    ms_per_token: float
    peak: int | None
    """Bytes; None where the change moves memory elsewhere."""


Planned = Callable[[Sequence[str]], tuple[RunConfig, Work, int]]
"""From further overrides to the config, the work of a step, and its peak of memory; raises ConfigError."""


def ms_per_token(work: Work, machine: MachineConfig) -> float:
    """Milliseconds of a step for each response token."""
    return 1e3 * sum(cost.total for cost in step_cost(work, machine).values()) / work.tokens


def gains(planned: Planned, machine: MachineConfig) -> list[Gain]:
    """Every knob by itself, best first."""
    config, work, peak = planned(())
    found = [gain for change in _changes(config) if (gain := _gain(planned, change, machine)) is not None]
    if isinstance(config.policy, InterleavedPolicy):
        blocks = [_gain(planned, f"policy.block={block}", machine) for block in _BLOCKS]
        found.append(min((gain for gain in blocks if gain is not None), key=lambda gain: gain.ms_per_token))
        alpha = min(0.98, work.alpha + _MORE_KEPT)
        text = f"a larger policy.gate.k, were {alpha:.0%} of the drafts kept"
        found.append(Gain(text, ms_per_token(replace(work, alpha=alpha), machine), peak))
    if work.writer == "interleaved" and work.teacher is not None:
        served = replace(work, rescored=True, block=work.block or 16)
        text = f"teacher on a vLLM server with as much as this machine, blocks of {served.block}"
        found.append(Gain(text, ms_per_token(served, machine), None))
    return sorted(found, key=lambda gain: gain.ms_per_token)


def _gain(planned: Planned, change: str, machine: MachineConfig) -> Gain | None:
    try:
        _, work, peak = planned((change,))
    except ConfigError:
        return None  # the method has no such key
    return Gain(change, ms_per_token(work, machine), peak)


def _changes(config: RunConfig) -> Iterator[str]:
    batch, slots = config.train.batch_size, config.sampling.slots
    yield f"train.batch_size={2 * batch}"
    if config.writers != {"data_set"}:
        wait = slots < batch * config.sampling.responses_per_prompt
        yield f"sampling.slots={2 * slots if wait else max(1, slots // 2)}"
    if not config.sampling.prompt_cache_mb and "interleaved" in config.writers:
        yield "sampling.prompt_cache_mb=1000"
    if config.student.dtype == "float32":
        yield "student.dtype=bfloat16"
    if isinstance(config.teacher, TeacherModel) and config.teacher.dtype == "float32":
        yield "teacher.dtype=bfloat16"
    if config.train.precision == "fp32":
        yield "train.precision=bf16"
    yield f"train.gradient_checkpointing={str(not config.train.gradient_checkpointing).lower()}"
    yield f"train.micro_batch_tokens={max(1, config.train.micro_batch_tokens // 4)}"

"""The cost model for 1 to 1,024 GPUs: which engine holds the teacher, what a step takes, what saturates first.

A model throughout: nothing of it was run. Each step writes and learns from the same number of responses, whatever the
number of GPUs, so that more GPUs mean fewer rows on each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from skd.plan.cost import NOTHING, Cost, step_cost
from skd.plan.machine import MachineConfig
from skd.plan.shape import Shape
from skd.plan.work import Work, played
from skd.sampling.pace import expected_tokens

__all__ = ["GPUS", "PAIRS", "Layout", "Step", "gathered", "local", "scale_lines", "served"]

GPUS = (1, 8, 64, 1024)
_RESPONSES, _PROMPT, _RESPONSE, _ALPHA = 1024, 256, 512, 0.8
_SLOTS, _MICRO_BATCH = 64, 16_384
_NODE = 8
"""GPUs of one machine."""
_SERVED_BLOCK, _ROUND_TRIP = 16, 0.02
"""Tokens that a server judges at once, and seconds of a round's requests; 13 ms a request were measured on a CPU."""
_GRAPHS_US = 0.5
"""Millionths of a second for an operation of a captured graph, or of an engine that has some; an assumption."""
_ROOM = 0.9
"""Share of a GPU's memory that may be filled."""


@dataclass(frozen=True)
class Models:
    """A pair by the sizes in its public configs."""

    student: Shape
    teacher: Shape


PAIRS: Mapping[str, Models] = {
    # https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json, .../Qwen2.5-7B/blob/main/config.json
    "0.5B <- 7B": Models(
        Shape.llama(layers=24, hidden=896, inner=4864, heads=14, key_heads=2, vocab_size=151_936, tied=True),
        Shape.llama(layers=28, hidden=3584, inner=18_944, heads=28, key_heads=4, vocab_size=152_064, tied=False),
    ),
    # https://huggingface.co/meta-llama/Llama-3.1-8B/blob/main/config.json, .../Llama-3.1-70B/blob/main/config.json
    "8B <- 70B": Models(
        Shape.llama(layers=32, hidden=4096, inner=14_336, heads=32, key_heads=8, vocab_size=128_256, tied=False),
        Shape.llama(layers=80, hidden=8192, inner=28_672, heads=64, key_heads=8, vocab_size=128_256, tied=False),
    ),
}


@dataclass(frozen=True)
class Step:
    """Seconds by part of a step, and the memory of the fullest GPU."""

    parts: Mapping[str, Cost]
    peak: float
    rows: float
    """Responses for each GPU that drafts."""
    note: str = ""

    @property
    def seconds(self) -> float:
        return sum(cost.total for cost in self.parts.values())

    @property
    def limit(self) -> str:
        """The part that takes most, and what limits it."""
        part = max(self.parts, key=lambda name: self.parts[name].total)
        return f"{part}: {self.parts[part].limit}"


@dataclass(frozen=True)
class Layout:
    """GPUs of one kind, and a pair spread over them."""

    models: Models
    gpus: int
    machine: MachineConfig

    def work(self, rows: float, **changes: object) -> Work:
        """What one GPU does for its rows, at least one."""
        count = max(1, round(rows))
        whole = Work(
            student=self.models.student,
            teacher=self.models.teacher,
            prompts=[_PROMPT] * count,
            responses=[_RESPONSE] * count,
            writer="interleaved",
            alpha=_ALPHA,
            block=None,
            slots=_SLOTS,
            student_dtype="bfloat16",
            teacher_dtype="bfloat16",
            precision="bfloat16",
            micro_batch_tokens=_MICRO_BATCH,
            checkpointing=True,
            recompute=False,
            device="cuda",
        )
        return replace(whole, **changes)  # type: ignore[arg-type]

    def exchange(self, num_bytes: float, among: int) -> Cost:
        """Every GPU gets what the ``among`` GPUs hold together, in a ring; the slowest link counts."""
        if among == 1:
            return NOTHING
        gbs = self.machine.link_gbs if among <= _NODE else self.machine.network_gbs
        seconds = num_bytes * (among - 1) / among / (1e9 * (gbs or 1.0) * self.machine.efficiency.links)
        return Cost(seconds, links=seconds)

    def learning(self, among: int) -> tuple[Cost, float]:
        """Exchange of gradients, and bytes of weights and optimiser on each GPU.

        Whole copies while they fit in half of a GPU; otherwise float32 shards as ``train.sharding`` makes them:
        gathered whole, for forward and for backward, gradients reduced; a whole copy in both types while sampling.
        """
        weights, memory = self.models.student.num_weights, self.machine.memory_gib * 2**30
        if 18 * weights < memory / 2:
            return self.exchange(8 * weights, among), 18 * weights
        return self.exchange(16 * weights, among), 16 * weights / among + 6 * weights

    def running(self, rows: float) -> float:
        """Bytes of caches, activations (layer inputs and one layer) and the loss."""
        held, tokens = min(rows, _SLOTS), _PROMPT + _RESPONSE
        student = self.models.student
        caches = 2 * held * tokens * student.layers * student.keys_per_token
        return caches + 4 * _MICRO_BATCH * (student.hidden * student.layers + 20 * student.hidden) + 2**30


def local(layout: Layout) -> Step:
    """The whole teacher on every GPU, in the process that trains."""
    rows, teacher = _RESPONSES / layout.gpus, layout.models.teacher
    exchanged, fixed = layout.learning(layout.gpus)
    parts = {**step_cost(layout.work(rows), layout.machine), "exchange": exchanged}
    caches = 2 * min(rows, _SLOTS) * (_PROMPT + _RESPONSE) * teacher.layers * teacher.keys_per_token
    return Step(parts, fixed + 2 * teacher.num_weights + caches + layout.running(rows), rows)


def gathered(layout: Layout) -> Step | None:
    """The teacher in shards, gathered once where it fits whole; otherwise a layer at a time at every look."""
    whole, teacher = local(layout), layout.models.teacher
    if layout.gpus == 1:
        return None
    fits = whole.peak <= _ROOM * layout.machine.memory_gib * 2**30
    looks = 1 if fits else sum(played(layout.work(whole.rows))[0].values())
    spared = 0.0 if fits else 2 * teacher.num_weights * (1 - 1 / layout.gpus)
    fetched = layout.exchange(2 * teacher.num_weights, layout.gpus) * looks
    note = "" if fits else "at every look*"
    return Step({**whole.parts, "gather": fetched}, whole.peak - spared, whole.rows, note)


def served(layout: Layout, writer: str = "interleaved") -> Step | None:
    """The teacher on vLLM servers that have GPUs of their own; the best split. None where there are too few."""
    teacher, memory = layout.models.teacher, layout.machine.memory_gib * 2**30
    width = next(t for t in (1, 2, 4, 8) if 2 * teacher.num_weights / t <= 0.6 * memory)
    options = [width * 2**power for power in range(11) if width * 2**power < layout.gpus]
    steps = [_served(layout, servers, width, writer) for servers in options]
    return min(steps, key=lambda step: step.seconds, default=None)


def _served(layout: Layout, servers: int, width: int, writer: str) -> Step:
    """``servers`` GPUs judge or score, ``width`` together, the others draft and learn."""
    drafting = layout.gpus - servers
    rows, judged = _RESPONSES / drafting, _RESPONSES * width / servers
    exchanged, fixed = layout.learning(drafting)
    asked = {"writer": writer, "block": _SERVED_BLOCK}
    mine = step_cost(layout.work(rows, **asked), layout.machine)
    theirs = step_cost(layout.work(judged, **asked, rescored=True, slots=256), _wide(layout.machine, width))
    parts = {**mine, **{name: cost for name, cost in theirs.items() if name in ("judge", "evidence")}}
    # The requests of all slots go out at once.
    rounds = _RESPONSE / expected_tokens(_ALPHA, _SERVED_BLOCK) if writer == "interleaved" else 1
    waiting = math.ceil(rows / _SLOTS) * rounds * _ROUND_TRIP
    parts |= {"requests": Cost(waiting, links=waiting), "exchange": exchanged}
    peak = max(fixed + layout.running(rows), 2 * layout.models.teacher.num_weights / width / 0.6)
    return Step(parts, peak, rows, f"{servers} of them, {width} together")


def _wide(machine: MachineConfig, width: int) -> MachineConfig:
    """``width`` GPUs as one that is so much faster, less a tenth for what they exchange; operations come in graphs."""
    share = width if width == 1 else 0.9 * width
    faster = {
        "weights_gbs": machine.weights_gbs.model_copy(update={"bfloat16": share * machine.weights_gbs.bfloat16}),
        "tflops": machine.tflops.model_copy(update={"bfloat16": share * machine.tflops.bfloat16}),
        "stream_gbs": share * machine.stream_gbs,
        "launch_us": _GRAPHS_US,
    }
    return machine.model_copy(update=faster)


@cache
def _steps(pair: str, gpus: int, machine: MachineConfig) -> Mapping[str, Step]:
    layout = Layout(PAIRS[pair], gpus, machine)
    found = {
        "local": local(layout),
        "vLLM": served(layout),
        "vLLM, on-policy": served(layout, "student"),
        "shards": gathered(layout),
    }
    return {name: step for name, step in found.items() if step is not None}


def scale_lines(machine: MachineConfig) -> Iterator[str]:
    """The table as Markdown."""
    reached = machine.efficiency
    yield f"A model, not a measurement: {machine.name}, {machine.source}; reached of it: {reached.bandwidth:.0%} of the"
    yield f"bandwidth, {reached.products:.0%} of the arithmetic, {reached.links:.0%} of the links."
    yield f"A step has {_RESPONSES:,} responses of {_RESPONSE} tokens after prompts of {_PROMPT}, {_ALPHA:.0%} of the"
    yield f"drafts kept, everything in bf16, at most {_SLOTS} rows at once."
    yield ""
    columns = ("pair", "GPUs", "teacher", "rows", "memory", "step, s", "tokens/s", "most of it", "step, s, graphs")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    graphs = machine.model_copy(update={"launch_us": _GRAPHS_US})
    for pair in PAIRS:
        for gpus in GPUS:
            for name, step in _steps(pair, gpus, machine).items():
                yield _line(pair, gpus, name, step, _steps(pair, gpus, graphs)[name], machine)


def _line(pair: str, gpus: int, name: str, step: Step, captured: Step, machine: MachineConfig) -> str:
    room = step.peak / 2**30
    fits = f"{room:.0f} GiB" if room <= _ROOM * machine.memory_gib else f"no, {room:.0f} GiB"
    rate = _RESPONSES * _RESPONSE / step.seconds
    cells = (
        pair,
        f"{gpus:,}",
        f"{name} ({step.note})" if step.note else name,
        f"{step.rows:,.0f}",
        fits,
        _short(step.seconds),
        f"{rate:,.0f}",
        step.limit,
        _short(captured.seconds),
    )
    return f"| {' | '.join(cells)} |"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"

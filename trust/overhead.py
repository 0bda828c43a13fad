"""What a second process costs: the same training in one process and in two, in turn."""

from __future__ import annotations

import resource
from statistics import median
from typing import Any

from trust.processes import train_ranks
from trust.tally import Bench, Tally

__all__ = ["overhead"]

LARGER: dict[str, Any] = {"batch_size": 32, "validate_every": None, "save_every": None, "samples_every": None}


def overhead(bench: Bench) -> Tally:
    """CPU and wall-clock seconds of a run from its start (torch is imported) to its end, both models interleaved."""
    tally, costs = Tally(), {1: list[tuple[float, float]](), 2: list[tuple[float, float]]()}
    for number in range(bench.size.overhead_rounds):
        for world_size in costs:
            before = _cpu_seconds()
            config = bench.toy.config("skd", **LARGER, max_steps=bench.size.overhead_steps)
            ended = train_ranks(bench.room / f"{number}-{world_size}", config, world_size)
            costs[world_size].append((_cpu_seconds() - before, max(one.seconds for one in ended)))
            tally.note(f"runs of {world_size}", *(one.output[-500:] for one in ended if one.code))
    for world_size, name in ((1, "one"), (2, "two")):
        for kind, values in zip(("cpu", "wall"), zip(*costs[world_size], strict=True), strict=True):
            tally.most(f"{kind}_seconds_of_{name}", median(values))
    return tally


def _cpu_seconds() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

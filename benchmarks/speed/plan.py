"""What is measured: the tables of ``make bench`` and of ``make bench QUICK=1``."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.turns import taken
from skd.check.environment import machine

__all__ = ["FULL", "QUICK", "Plan", "Row", "Table"]


@dataclass(frozen=True)
class Table:
    """Contestants that take turns on one piece of work."""

    name: str
    work: Path
    ours: tuple[str, ...]
    rivals: tuple[str, ...]
    rounds: int
    warm_up: bool = True

    def measure(self, rivals_python: Path, seconds: float) -> dict[str, list[dict[str, Any]]]:
        """All turns of all contestants; no further round begins once ``seconds`` of wall time have passed."""
        commands: list[list[str | Path]] = []
        if self.ours:
            commands.append([sys.executable, "-m", "benchmarks.speed.ours", self.work, *self.ours])
        commands += [[rivals_python, "-m", "benchmarks.speed.rival", self.work, name] for name in self.rivals]
        return taken(commands, self.rounds, self.warm_up, seconds)


@dataclass(frozen=True)
class Row:
    """A table before its work is made."""

    name: str
    work: str
    """A key of the plan's works: tables of one work share its file."""
    ours: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    rounds: int = 1
    warm_up: bool = True
    gigabytes: float = 0.0
    """Memory that must be free, or the table is left out."""


@dataclass(frozen=True)
class Plan:
    """What is measured, in order."""

    name: str
    works: Mapping[str, Mapping[str, Any]]
    """By name, the keys of ``benchmarks.speed.pair.with_work`` that differ from ``_COMMON``."""
    rows: tuple[Row, ...]
    seconds: float
    """Wall time after which no further round of a table begins."""

    def tables(self, directory: Path, wanted: Callable[[str], bool]) -> Iterator[Table]:
        """The tables whose name is wanted, each made when it is its turn."""
        for row in self.rows:
            if wanted(row.name) and _fits(row):
                work = self._work(row.work, directory)
                yield Table(row.name, work, row.ours, row.rivals, row.rounds, row.warm_up)

    def _work(self, name: str, directory: Path) -> Path:
        path = directory / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps({**_COMMON, **self.works[name]}))
            subprocess.run([sys.executable, "-m", "benchmarks.speed.pair", path, directory], check=True)
        return path


def _fits(row: Row) -> bool:
    free = machine().ram_free / 1e9
    if free < row.gigabytes:
        print(f"{row.name} needs {row.gigabytes:g} GB of memory, and {free:.1f} are free: left out", flush=True)
    return free >= row.gigabytes


_COMMON = {"shape": "quick", "batch": 8, "length": 64, "dtype": "float32", "ragged": 0, "spread": 0.0}
_STEPS = ("skd_alpha5", "skd_alpha9", "on_policy", "supervised")
_RIVALS = ("gkd", "distillation", "gkd_supervised")

QUICK = Plan(
    "quick",
    {
        "b8": {},
        "ragged": {"ragged": 64},
        "b32bf16": {"batch": 32, "dtype": "bfloat16"},
        "memory512": {"shape": "large_vocabulary", "batch": 1, "length": 512},
    },
    (
        Row("step_b8", "b8", (*_STEPS, "released", "hf_assisted"), ("gkd",), rounds=2),
        Row("light_b8", "b8", ("light",), warm_up=False),
        Row("generate", "ragged", ("our_generate", "hf_generate")),
        Row("step_b32_bf16", "b32bf16", ("skd_alpha5",)),
        Row("memory_512", "memory512", ("supervised",), ("gkd_supervised",), warm_up=False),
    ),
    seconds=math.inf,
)

_LENGTHS = (64, 256, 1024)
_MEMORY = (512, 1024)

FULL = Plan(
    "full",
    {
        "b8": {"shape": "smollm2"},
        "b1": {"shape": "smollm2", "batch": 1},
        "b32": {"batch": 32},
        "b8bf16": {"dtype": "bfloat16"},
        "b32bf16": {"shape": "smollm2", "batch": 32, "dtype": "bfloat16"},
        "ragged": {"shape": "smol", "ragged": 256},
        "quickstart": {"shape": "quickstart", "batch": 64, "length": 24},
        "vocabulary262k": {"shape": "vocabulary_262k", "batch": 2},
        **{f"length{length}": {"batch": 2, "length": length, "spread": 0.6} for length in _LENGTHS},
        **{f"memory{n}": {"shape": "large_vocabulary", "batch": 1, "length": n} for n in _MEMORY},
    },
    (
        # GKDTrainer's logits, 12 MB a token, beside which others may live.
        *(
            Row(f"memory_{n}", f"memory{n}", ("supervised",), _RIVALS[1:], warm_up=False, gigabytes=0.016 * n)
            for n in _MEMORY
        ),
        Row("quickstart_b64", "quickstart", ("skd_alpha5", "on_policy", "supervised"), ("gkd",), rounds=3),
        Row("step_b8", "b8", (*_STEPS, "released", "hf_assisted"), _RIVALS, rounds=2),
        Row("light_b8", "b8", ("light",), warm_up=False),
        Row("step_b1", "b1", _STEPS, ("gkd", "distillation"), rounds=2),
        Row("light_b1", "b1", ("light",), warm_up=False),
        Row("step_b8_bf16", "b8bf16", _STEPS, ("gkd", "distillation")),
        *(Row(f"length_{n}", f"length{n}", _STEPS[1:], warm_up=n < 1024) for n in _LENGTHS),
        Row("vocabulary_262k", "vocabulary262k", _STEPS[1:], ("gkd", "distillation")),
        Row("step_b32_bf16", "b32bf16", _STEPS),
        Row("step_b32", "b32", _STEPS, ("gkd", "distillation")),
        Row("light_b32", "b32", ("light",), warm_up=False),
        Row("generate", "ragged", ("our_generate", "hf_generate")),
    ),
    seconds=320.0,
)
"""What the figures are of with SmolLM2-135M or, for generation, its shape; the rest with half of its layers, so that
none is long."""

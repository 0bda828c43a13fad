"""What is measured: the tables of ``make bench`` and of ``make bench QUICK=1``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.turns import taken

__all__ = ["FULL", "QUICK", "Plan", "Table"]


@dataclass(frozen=True)
class Table:
    """Contestants that take turns on one piece of work."""

    name: str
    work: Path
    ours: tuple[str, ...]
    rivals: tuple[str, ...]
    rounds: int
    warm_up: bool = True

    def measure(self, rivals_python: Path) -> dict[str, list[dict[str, Any]]]:
        """All turns of all contestants."""
        commands: list[list[str | Path]] = []
        if self.ours:
            commands.append([sys.executable, "-m", "benchmarks.speed.ours", self.work, *self.ours])
        commands += [[rivals_python, "-m", "benchmarks.speed.rival", self.work, name] for name in self.rivals]
        return taken(commands, self.rounds, self.warm_up)


@dataclass(frozen=True)
class Plan:
    """The size of everything."""

    name: str
    shape: str
    """A shape of ``benchmarks.speed.pair``."""
    length: int
    rounds: int
    ragged: int
    """Prompts of the generation alone."""
    memory_lengths: tuple[int, ...]
    every_batch: bool
    """Batches 1 and 32 in float32, too, and the further rivals."""

    def tables(self, directory: Path) -> Iterator[Table]:
        """The tables, each made when it is its turn."""

        def work(name: str, **keys: Any) -> Path:
            values = {"shape": self.shape, "length": self.length, "dtype": "float32", "ragged": 0, **keys}
            path = directory / f"{name}.json"
            path.write_text(json.dumps(values))
            subprocess.run([sys.executable, "-m", "benchmarks.speed.pair", path, directory], check=True)
            return path

        steps = ("skd_alpha5", "skd_alpha9", "on_policy", "supervised")
        rivals = ("gkd", "distillation", "gkd_supervised") if self.every_batch else ("gkd",)
        eight = work("b8", batch=8)
        yield Table("step_b8", eight, (*steps, "released", "hf_assisted"), rivals, self.rounds)
        yield Table("light_b8", eight, ("light",), (), 1, warm_up=False)
        ragged = work("ragged", batch=8, ragged=self.ragged)
        yield Table("generate", ragged, ("our_generate", "hf_generate"), (), self.rounds - 1)
        yield Table("step_b32_bf16", work("b32bf16", batch=32, dtype="bfloat16"), ("skd_alpha5",), (), 1)
        if self.every_batch:
            for batch in (1, 32):
                path = work(f"b{batch}", batch=batch)
                yield Table(f"step_b{batch}", path, steps, ("gkd",), self.rounds)
                yield Table(f"light_b{batch}", path, ("light",), (), 1, warm_up=False)
        for length in self.memory_lengths:
            path = work(f"memory{length}", batch=1, length=length, shape="large_vocabulary")
            others = ("gkd_supervised", "distillation") if self.every_batch else ("gkd_supervised",)
            yield Table(f"memory_{length}", path, ("supervised",), others, 1, warm_up=False)


QUICK = Plan("quick", "quick", length=64, rounds=2, ragged=64, memory_lengths=(512,), every_batch=False)
FULL = Plan("full", "smol", length=64, rounds=3, ragged=256, memory_lengths=(512, 1024), every_batch=True)

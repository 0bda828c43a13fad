"""What a part of the harness was asked to do, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from trust.toy import Toy
from trust.wholes import Whole

__all__ = ["SIZES", "Bench", "Size", "Tally"]


@dataclass(frozen=True)
class Size:
    """How many trials each part makes."""

    point_kills_in_every_mode: bool
    """One kill at each named point in every mode, or the modes in turn."""
    random_kills_per_mode: int
    save_kills_per_mode: int
    mutations: int
    budgets: int
    """Amounts of free space at which a save is tried, besides each of its points."""
    signals_per_phase: int
    rank_changes: int
    """Runs whose number of processes changes from kill to kill."""
    locks: int
    repeats: int
    fuzzed: int
    """Config files; as many data files."""
    rank_faults: int
    """Of each of three kinds at each of six phases."""
    launches: int
    """Runs under torchrun, one of whose processes is stopped or killed."""
    uneven_rollouts: int
    equal_ranks: int
    """Runs of two processes that must end with the same bytes."""
    overhead_steps: int
    overhead_rounds: int
    """Runs of one process and of two, in turn, whose cost is compared."""
    seconds_to_end: float
    """Most seconds from a rank's fault, or from the limit of one that is stuck, until both have ended."""


SIZES = {
    "small": Size(
        point_kills_in_every_mode=False,
        random_kills_per_mode=3,
        save_kills_per_mode=2,
        mutations=150,
        budgets=6,
        signals_per_phase=1,
        rank_changes=1,
        locks=2,
        repeats=1,
        fuzzed=500,
        rank_faults=1,
        launches=1,
        uneven_rollouts=20,
        equal_ranks=2,
        overhead_steps=6,
        overhead_rounds=2,
        # The gate also runs where other programs keep the machine busy.
        seconds_to_end=30.0,
    ),
    "full": Size(
        point_kills_in_every_mode=True,
        random_kills_per_mode=200,
        save_kills_per_mode=40,
        mutations=1000,
        budgets=120,
        signals_per_phase=10,
        rank_changes=16,
        locks=20,
        repeats=9,
        fuzzed=10_000,
        rank_faults=10,
        launches=4,
        uneven_rollouts=100,
        equal_ranks=5,
        overhead_steps=40,
        overhead_rounds=5,
        seconds_to_end=5.0,
    ),
}


@dataclass(frozen=True)
class Bench:
    """What every part gets."""

    toy: Toy
    wholes: Mapping[str, Whole]
    """By mode."""
    size: Size
    room: Path
    """An empty directory of the part's own."""
    random: Random


@dataclass
class Tally:
    """Trials made, by kind, numbers measured, and one line for each trial that failed."""

    counts: Counter[str] = field(default_factory=Counter)
    measured: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, kind: str, *complaints: str) -> None:
        """Count one trial of a kind, and its complaints."""
        self.counts[kind] += 1
        self.failures += [f"{kind}: {complaint}" for complaint in complaints]

    def most(self, name: str, value: float) -> None:
        """Keep the largest of the values measured under a name, to three digits."""
        self.measured[name] = max(float(f"{value:.3g}"), self.measured.get(name, 0.0))

    def add(self, other: Tally) -> None:
        """Take in what another part counted and measured."""
        self.counts += other.counts
        for name, value in other.measured.items():
            self.most(name, value)
        self.failures += other.failures

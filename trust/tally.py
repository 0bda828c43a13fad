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
    """Trials made, by kind, and one line for each that failed."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def note(self, kind: str, *complaints: str) -> None:
        """Count one trial of a kind, and its complaints."""
        self.counts[kind] += 1
        self.failures += [f"{kind}: {complaint}" for complaint in complaints]

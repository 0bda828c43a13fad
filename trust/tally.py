"""What a part of the harness was asked to do, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from trust.toy import Toy

__all__ = ["SIZES", "Bench", "Size", "Tally"]


@dataclass(frozen=True)
class Size:
    """How many trials each part makes."""

    kills_per_mode: int
    """At random moments."""
    save_kills_per_mode: int
    mutations: int
    budgets: int
    """Amounts of free space at which a save is tried, besides each of its calls."""
    signals_per_phase: int
    locks: int
    fuzzed: int
    """Config files; as many data files."""
    repeats: int


SIZES = {
    "small": Size(
        kills_per_mode=4,
        save_kills_per_mode=3,
        mutations=150,
        budgets=12,
        signals_per_phase=2,
        locks=4,
        fuzzed=600,
        repeats=3,
    ),
    "full": Size(
        kills_per_mode=200,
        save_kills_per_mode=40,
        mutations=1000,
        budgets=120,
        signals_per_phase=10,
        locks=20,
        fuzzed=10_000,
        repeats=10,
    ),
}


@dataclass(frozen=True)
class Bench:
    """What every part gets."""

    toy: Toy
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

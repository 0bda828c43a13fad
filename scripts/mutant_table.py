"""The faults that ``make mutants`` plants. Each is a mistake that distillation code has really been published with."""

from __future__ import annotations

from scripts.mutants import Mutant

__all__ = ["MUTANTS"]

MUTANTS: tuple[Mutant, ...] = ()

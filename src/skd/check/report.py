"""What a check found: one part after the other, each with its facts, warnings and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from skd.errors import Problem, SkdError, joined
from skd.text import visible

__all__ = ["Part", "Say", "exit_code", "require"]


@dataclass
class Part:
    """One part of the check, filled while it runs."""

    name: str
    facts: list[str] = field(default_factory=list)
    """What was found, in clauses."""
    warnings: list[Problem] = field(default_factory=list)
    """What a run may go on with, and a person should know."""
    errors: list[SkdError] = field(default_factory=list)
    idle: list[Problem] = field(default_factory=list)
    """Settings without effect, which may well be meant."""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Errors raised inside the block are kept instead, each problem once; what follows in the block is left out."""
        try:
            yield
        except SkdError as error:
            known = {problem for kept in self.errors for problem in kept.problems}
            new = [problem for problem in error.problems if problem not in known]
            if new:
                self.errors.append(type(error)(new))

    @property
    def told(self) -> list[str]:
        """What a run may go on with, one line each."""
        return [
            *(problem.line("warning") for problem in self.warnings),
            *(problem.line("idle") for problem in self.idle),
        ]

    @property
    def state(self) -> str:
        """ "ok", "warning" or "error"."""
        return "error" if self.errors else "warning" if self.warnings else "ok"

    def lines(self) -> list[str]:
        """The part as lines for a terminal: the first says how it stands, the others what is wrong."""
        problems = [problem for error in self.errors for problem in error.problems]
        first = f"{self.name:<12} {self.state:<8} {'; '.join(self.facts)}".rstrip()
        messages = [*(str(problem) for problem in problems), *self.told]
        return [visible(line) for line in (first, *(f"  {message}" for message in messages))]


Say = Callable[[Part], None]
"""Called with each part as soon as it is finished."""


def exit_code(parts: Sequence[Part]) -> int:
    """0, or the exit code of the gravest error, which is the lowest."""
    return min((error.exit_code for part in parts for error in part.errors), default=0)


def require(parts: Sequence[Part]) -> None:
    """Raise one error with the problems of all parts, where there are any."""
    errors = [error for part in parts for error in part.errors]
    if errors:
        raise joined(errors)

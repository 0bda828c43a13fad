"""The uninterrupted runs that all others are compared with, one in each mode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trust.child import train
from trust.ends import end_of
from trust.toy import Toy

__all__ = ["Whole"]


@dataclass(frozen=True)
class Whole:
    """A run that nothing interrupted."""

    directory: Path
    seconds: float
    end: dict[str, str]
    """Hashes by name; see ``trust.ends.end_of``."""

    @staticmethod
    def of(toy: Toy, mode: str, directory: Path) -> Whole:
        """Make the run. Raises RuntimeError when the toy itself does not run."""
        ended = train(directory, toy.config(mode)).wait()
        if ended.code:
            raise RuntimeError(f"{mode}: exit code {ended.code}\n{ended.output}")
        return Whole(directory, ended.seconds, end_of(directory / "run"))

"""The errors a user can meet, and the exit code of each.

    SkdError                    1   base of everything raised on purpose
    |- ConfigError              2   the command line or the config file
    |- DataError                3   data files, rows, lengths, templates of rows
    |- ModelError               4   models, tokenizers, vocabularies, attention
    |- CheckpointError          5   checkpoints, run directories, locks
    |- RemoteError              6   network and remote engines
    |- NumericsError            7   non-finite loss, log-probs or gradients
    |- ResourceError            8   disk and memory

Exit code 0 is success, 70 a fault of ours, 128+n a signal. A message names the place, what was found, what was
expected and the way out. Several problems found in one pass travel in one error, in ``problems``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ModelError",
    "NumericsError",
    "Problem",
    "RemoteError",
    "ResourceError",
    "SkdError",
    "joined",
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: ``error[CODE] place: found; remedy``."""

    code: str
    """Stable identifier, such as ``SKD-C05``: group letter and number of the fault catalogue."""
    place: str
    """File with line, config key, or row, such as ``train.yaml:12``. Empty when there is none."""
    found: str
    """What was found and what was expected, in one clause."""
    remedy: str
    """The way out, in the imperative."""

    def __str__(self) -> str:
        return self.line("error")

    def line(self, level: str) -> str:
        """The message, opened by ``level``: "error", or "warning" where the run may go on."""
        place = f" {self.place}:" if self.place else ""
        return f"{level}[{self.code}]{place} {self.found}; {self.remedy}"


class SkdError(Exception):
    """Base of all errors raised on purpose; carries one or more problems."""

    exit_code = 1

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(SkdError):
    """The command line or the config file is wrong."""

    exit_code = 2


class DataError(SkdError):
    """A data file or a row is wrong."""

    exit_code = 3


class ModelError(SkdError):
    """A model, a tokenizer or the pair of them cannot be used."""

    exit_code = 4


class CheckpointError(SkdError):
    """A checkpoint or a run directory cannot be used."""

    exit_code = 5


class RemoteError(SkdError):
    """A network resource or a remote engine failed."""

    exit_code = 6


class NumericsError(SkdError):
    """A value that must be finite is not."""

    exit_code = 7


class ResourceError(SkdError):
    """Disk or memory does not suffice."""

    exit_code = 8


def joined(errors: Sequence[SkdError]) -> SkdError:
    """One error with the problems of all, of the class of the gravest: the one with the lowest exit code."""
    ordered = sorted(errors, key=lambda error: error.exit_code)
    return type(ordered[0])([problem for error in ordered for problem in error.problems])

"""Work that is done once: a directory with what it was asked for, and a record when it is finished.

``identity.json`` is written before the work, ``record.json`` after it. A job whose identity changed is stale: it is
never silently repeated, and never silently counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from skd.config import config_of
from skd.errors import CheckpointError, ConfigError, NumericsError, Problem, SkdError, joined
from skd.recorded import differences
from skd.text import write_text

__all__ = ["NO_MATTER", "Job", "State", "digest", "read_record", "refuse_stale", "run_jobs", "set_aside", "state_of"]

Record = dict[str, Any]
IDENTITY, RECORD = "identity.json", "record.json"
NO_MATTER: Any = {"output": True, "train": {"samples_every", "trackers", "keep", "save_every"}}
"""Of a config: what changes nothing in the result."""


@dataclass(frozen=True)
class Job:
    """One piece of a comparison."""

    name: str
    """For people: ``weak / skd / seed 0``."""
    directory: Path
    identity: Mapping[str, Any]
    """All that its result depends on, as JSON values."""
    work: Callable[[Path], Record]
    """Does it, or goes on with it, in the directory; returns the record."""


@dataclass(frozen=True)
class State:
    """Where a job is."""

    kind: Literal["to do", "started", "finished", "stale"]
    changes: tuple[str, ...] = ()
    """Of a stale one: ``train.lr was 0.002, is 0.001``."""

    def __str__(self) -> str:
        return f"{self.kind}: {'; '.join(self.changes)}" if self.changes else self.kind


def digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity, in hexadecimal."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def state_of(job: Job) -> State:
    """What the job's directory says of it. Only reads."""
    saved = _read(job.directory / IDENTITY)
    if saved is None:
        return State("to do")
    changed = differences(_in_todays_keys(saved), json.loads(json.dumps(job.identity)))
    if changed:
        return State("stale", tuple(f"{one.key} was {one.saved}, is {one.current}" for one in changed))
    return State("started" if read_record(job) is None else "finished")


def _in_todays_keys(identity: Record) -> Record:
    """A saved identity with the defaults of config keys that came after it: they change nothing in it."""
    if not isinstance(identity.get("config"), dict):
        return identity
    try:
        config = config_of(identity["config"])
    except ConfigError:  # keys that are gone: the difference will say so
        return identity
    return {**identity, "config": config.model_dump(mode="json", exclude=NO_MATTER)}


def read_record(job: Job) -> Record | None:
    """The record of a finished job."""
    return _read(job.directory / RECORD)


def _read(path: Path) -> Record | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        found = f"cannot be read ({error})"
        raise CheckpointError(Problem("SKD-K05", str(path), found, "remove its directory to repeat it")) from error
    return value if isinstance(value, dict) else None


def refuse_stale(jobs: Sequence[Job]) -> None:
    """Raises CheckpointError (SKD-K14) that lists the stale ones with what changed."""
    stale = [(job, state) for job in jobs if (state := state_of(job)).kind == "stale"]
    if stale:
        remedy = "put the plan back, choose another output, or add --redo to run them again and keep the old ones aside"
        raise CheckpointError(
            [
                Problem("SKD-K14", str(job.directory), f"{job.name} is stale: {'; '.join(state.changes)}", remedy)
                for job, state in stale
            ]
        )


def set_aside(job: Job) -> Path:
    """Move a job's directory out of the way, to the first free ``NAME.old-N``; returns where it is now."""
    names = (job.directory.with_name(f"{job.directory.name}.old-{n}") for n in count(1))
    free = next(name for name in names if not name.exists())
    job.directory.rename(free)
    return free


def run_jobs(jobs: Sequence[Job], *, redo: bool, say: Callable[[str], None]) -> Iterator[tuple[Job, Record]]:
    """The record of each job, in order, doing what is not finished. Stale ones are refused before any work.

    redo: stale ones are moved aside and done again.

    A run whose numbers are not finite stops no other one; the NumericsError comes at the end, for all of them.
    """
    if not redo:
        refuse_stale(jobs)
    failed: list[SkdError] = []
    for number, job in enumerate(jobs, 1):
        record = read_record(job) if state_of(job).kind == "finished" else None
        if record is None:
            say(f"[{number}/{len(jobs)}] {job.name}")
            try:
                record = _done(job, say)
            except NumericsError as error:
                say(f"  failed: {error}")
                failed.append(error)
                continue
        yield job, record
    if failed:
        raise joined(failed)


def _done(job: Job, say: Callable[[str], None]) -> Record:
    if state_of(job).kind == "stale":
        say(f"  the stale one is kept in {set_aside(job)}")
    job.directory.mkdir(parents=True, exist_ok=True)
    write_text(job.directory / IDENTITY, json.dumps(job.identity, indent=1, sort_keys=True) + "\n")
    record = job.work(job.directory)
    write_text(job.directory / RECORD, json.dumps(record, indent=1) + "\n")
    return record

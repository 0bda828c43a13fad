"""Where a run starts: afresh, or from its newest whole checkpoint when that belongs to the same run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from skd.config import RunConfig
from skd.engines.vllm import close_probes
from skd.errors import CheckpointError, Problem
from skd.train.directory import latest_whole
from skd.train.manifest import CONFIG_FILE

__all__ = ["ResumeMode", "differences", "find_start", "refuse_differences"]

ResumeMode = Literal["auto", "must", "never"]

_HARMLESS = frozenset(
    {
        "output",
        "train.samples_every",
        "train.trackers",
        "hub",
        "hub.repo",
        "hub.private",
        "hub.revision",
        "train.keep",
        "train.save_every",
        # These three change rounding at most, and are what a user changes after running out of memory.
        "train.micro_batch_tokens",
        "train.gradient_checkpointing",
        "sampling.slots",
        # Where a server is and how patiently it is asked, not what it answers.
        "teacher.url",
        "teacher.concurrency",
        "teacher.silence_seconds",
        "teacher.total_seconds",
        "teacher.tries",
    }
)
_UNTOLD = frozenset({"output", "models.teacher.probe"})
_MAY_GROW = frozenset({"train.max_steps", "train.epochs"})


@dataclass(frozen=True)
class Difference:
    """A key whose value in the checkpoint is not the one of now."""

    key: str
    saved: Any
    current: Any

    @property
    def harmless(self) -> bool:
        if self.key in _MAY_GROW and self.saved is not None and self.current is not None:
            return bool(self.current >= self.saved)
        if self.key.endswith(".probe") and isinstance(self.saved, list) and isinstance(self.current, list):
            return close_probes(self.saved, self.current)
        return self.key in _HARMLESS


def find_start(run_dir: Path, config: RunConfig, mode: ResumeMode, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to resume from, None for a fresh start. Tells of refused checkpoints. Only reads.

    Raises CheckpointError: SKD-K07 when ``mode`` is "must" and there is none, SKD-K15 when it is "never" and there is
    one or when the export would replace a directory that no run of ours made, SKD-K06 when none is whole, SKD-K14 when
    the checkpoint is of another configuration.
    """
    checkpoint, refused = latest_whole(run_dir)
    for refusal in refused:
        say(str(refusal))
    if checkpoint is None and mode == "must":
        raise CheckpointError(
            Problem("SKD-K07", str(run_dir), "there is no checkpoint to resume from", "use resume auto to start afresh")
        )
    if checkpoint is not None and mode == "never":
        found = f"the run directory already has checkpoints, the newest is {checkpoint.name}"
        raise CheckpointError(Problem("SKD-K15", str(run_dir), found, "resume it, or choose another output"))
    if checkpoint is None:
        _refuse_to_replace(run_dir / "student")
        say(f"no checkpoint in {run_dir}: starting afresh")
        return None
    saved = yaml.safe_load((checkpoint / CONFIG_FILE).read_text(encoding="utf-8"))
    refuse_differences(checkpoint, differences(saved, config.model_dump(mode="json")), say)
    say(f"resuming from {checkpoint.name}")
    return checkpoint


def _refuse_to_replace(student: Path) -> None:
    """A finished run replaces its ``student``; without a checkpoint beside it, that directory is somebody else's."""
    if os.path.lexists(student) and not (student.is_dir() and not any(student.iterdir())):
        found = "is there already, with no checkpoint beside it, and the run would replace it by its own student"
        raise CheckpointError(Problem("SKD-K15", str(student), found, "move it away, or choose another output"))


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """The keys in which two nested mappings differ, joined by dots, in alphabetical order."""
    before, now = _flat(saved), _flat(current)
    return [
        Difference(key, before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def refuse_differences(checkpoint: Path, found: list[Difference], say: Callable[[str], None]) -> None:
    """Tell of harmless differences. Raises CheckpointError (SKD-K14) with a table of the others."""
    harmful = [difference for difference in found if not difference.harmless]
    if harmful:
        rows = [("key", "checkpoint", "now"), *((row.key, str(row.saved), str(row.current)) for row in harmful)]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        table = "\n".join(f"  {key:<{widths[0]}}  {saved:<{widths[1]}}  {now}" for key, saved, now in rows)
        raise CheckpointError(
            Problem(
                "SKD-K14",
                str(checkpoint),
                f"the checkpoint is of a run with other settings:\n{table}\n",
                "put the settings back, or choose another output for a new run",
            )
        )
    for difference in found:
        if difference.key not in _UNTOLD:
            say(f"continuing with {difference.key} {difference.current} (was {difference.saved})")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat

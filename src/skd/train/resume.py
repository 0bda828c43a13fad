"""Where a run starts: afresh, or from its newest whole checkpoint when that belongs to the same run."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from skd.config import RunConfig
from skd.errors import CheckpointError, Problem
from skd.recorded import differences, other_settings, recorded_in
from skd.train.directory import latest_whole

__all__ = ["ResumeMode", "find_start"]

ResumeMode = Literal["auto", "must", "never"]


def find_start(
    run_dir: Path, config: RunConfig, mode: ResumeMode, say: Callable[[str], None], allowed: Collection[str] = ()
) -> Path | None:
    """The checkpoint to resume from, None for a fresh start. Tells of refused checkpoints. Only reads.

    Raises CheckpointError: SKD-K07 when ``mode`` is "must" and there is none, SKD-K15 when it is "never" and there is
    one or when the export would replace a directory that no run of ours made, SKD-K06 when none is whole, SKD-C15 when
    the checkpoint is of another configuration and the keys that differ are not ``allowed`` by name.
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
    changed = differences(recorded_in(checkpoint).config, config.model_dump(mode="json"))
    if error := other_settings(checkpoint, changed, allowed):
        raise error
    for difference in changed:
        if difference.key != "output":
            say(f"continuing with {difference.key} {difference.current} (was {difference.saved})")
    say(f"resuming from {checkpoint.name}")
    return checkpoint


def _refuse_to_replace(student: Path) -> None:
    """A finished run replaces its ``student``; without a checkpoint beside it, that directory is somebody else's."""
    if os.path.lexists(student) and not (student.is_dir() and not any(student.iterdir())):
        found = "is there already, with no checkpoint beside it, and the run would replace it by its own student"
        raise CheckpointError(Problem("SKD-K15", str(student), found, "move it away, or choose another output"))

"""The checkpoints of a run directory: which are whole, which is the newest, and which may be deleted."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from skd.errors import CheckpointError, Problem
from skd.files import hash_file
from skd.manifest import FORMAT, MANIFEST_FILE, STATE_FILE, read_manifest

__all__ = ["Refusal", "defect", "latest_whole", "prune", "remove", "remove_stale", "set_aside", "step_of"]

_STEP_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Refusal:
    """A checkpoint that does not count, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} was refused: {self.reason}"


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's directory name."""
    match = _STEP_NAME.fullmatch(checkpoint.name)
    assert match is not None, checkpoint
    return int(match[1])


def defect(checkpoint: Path) -> str | None:
    """Why a checkpoint directory does not count; None when every byte is as it was written."""
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        return "not a directory"
    try:
        manifest = (checkpoint / MANIFEST_FILE).read_bytes()
        for name, written in sorted(read_manifest(manifest).items()):
            found = hash_file(checkpoint / name)
            if found.bytes != written.bytes:
                return f"{name} has {found.bytes} bytes, {written.bytes} were written"
            if found.sha256 != written.sha256:
                return f"the SHA-256 of {name} differs from the manifest"
        return _state_defect(checkpoint)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read ({error.strerror})"
    except ValueError as error:
        return f"{MANIFEST_FILE} {error}"


def _state_defect(checkpoint: Path) -> str | None:
    state = json.loads((checkpoint / STATE_FILE).read_text())
    if state.get("format") != FORMAT:
        return f"{STATE_FILE} has format {state.get('format')!r}; this version reads {FORMAT}"
    if state["step"] != step_of(checkpoint):
        return f"{STATE_FILE} is of step {state['step']}"
    return None


def latest_whole(run_dir: Path) -> tuple[Path | None, list[Refusal]]:
    """The newest whole checkpoint, with the newer ones that were refused; None when the run has no checkpoint at all.

    Raises CheckpointError (SKD-K06) when there are checkpoints and none is whole: never a silent fresh start.
    """
    refused: list[Refusal] = []
    for checkpoint in _checkpoints(run_dir / "checkpoints"):
        reason = defect(checkpoint)
        if reason is None:
            return checkpoint, refused
        refused.append(Refusal(checkpoint.name, reason))
    if refused:
        raise CheckpointError(
            [
                Problem(
                    "SKD-K06",
                    str(run_dir / "checkpoints" / refusal.name),
                    f"no checkpoint of this run is whole: {refusal.reason}",
                    "restore one from a copy, or start anew in another output directory",
                )
                for refusal in refused
            ]
        )
    return None, refused


def _checkpoints(directory: Path) -> list[Path]:
    """Every ``step-N``, newest first."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if _STEP_NAME.fullmatch(path.name)), key=step_of, reverse=True)


def remove_stale(run_dir: Path) -> list[str]:
    """Remove what writes that were killed left in a run directory; returns the names. Call it under the run's lock."""
    inside = [run_dir, run_dir / "checkpoints", run_dir / "tokens"]
    # A link may lead out of the run.
    stale = [path for folder in inside if not folder.is_symlink() for path in sorted(folder.glob(".tmp-*"))]
    for path in stale:
        remove(path)
    return [path.name for path in stale]


def prune(directory: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the newest ``keep`` and the best, and only directories that hold our manifest."""
    ours = [path for path in _checkpoints(directory) if _holds_our_manifest(path)]
    for checkpoint in ours[keep:]:
        if step_of(checkpoint) != best_step:
            # Renamed first, so that a kill while deleting leaves a .tmp name and no half checkpoint.
            doomed = directory / f".tmp-pruned-{checkpoint.name}-{os.getpid()}"
            os.rename(checkpoint, doomed)
            remove(doomed)


def _holds_our_manifest(checkpoint: Path) -> bool:
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        return False
    try:
        read_manifest((checkpoint / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return True


def set_aside(checkpoint: Path) -> None:
    """Give way to a new checkpoint of the same step without deleting the broken one."""
    if os.path.lexists(checkpoint):
        os.rename(checkpoint, checkpoint.with_name(f"refused-{checkpoint.name}-{os.getpid()}"))


def remove(temporary: Path) -> None:
    """Delete a ``.tmp-`` name of ours, if it is there; links are not followed."""
    assert temporary.name.startswith(".tmp-"), temporary
    if temporary.is_symlink() or temporary.is_file():
        temporary.unlink()
    elif temporary.exists():
        shutil.rmtree(temporary)

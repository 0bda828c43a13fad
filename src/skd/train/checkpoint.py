"""Checkpoints: directories of safetensors and JSON that are whole or do not count.

    run_dir/checkpoints/step-N/
        student.safetensors     float32 master weights by parameter name, tied ones once
        optimizer.safetensors   AdamW state: exp_avg.NAME, exp_avg_sq.NAME, step.NAME
        state.json              TrainState
        config.yaml             the configuration of the run
        manifest.json           format, size and SHA-256 of every file above, and its own SHA-256; written last
    run_dir/best.json           the name of the best of them

A save writes to ``checkpoints/.tmp-step-N-PID``, fsyncs every file, renames, fsyncs the parent, reads everything back
against the manifest, and only then prunes. No pointer says which is the latest: the newest whole one is. Order is by
step, never by time.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from skd.errors import CheckpointError, Problem, ResourceError
from skd.faults import point
from skd.train.files import canonical, fsync_directory, hash_file, write_atomic, write_hashed, write_safetensors
from skd.train.manifest import (
    CONFIG_FILE,
    FORMAT,
    MANIFEST_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    STUDENT_FILE,
    manifest_bytes,
    read_manifest,
)

__all__ = [
    "Refusal",
    "TrainState",
    "defect",
    "latest_whole",
    "load",
    "read_state",
    "remove_stale",
    "require_space",
    "save",
    "step_of",
]

_STEP_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class TrainState:
    """Everything a run remembers besides tensors: noise and order are functions of it, no generator has a state."""

    step: int
    """Optimiser steps taken."""
    samples_trained: int
    """Position in the data order: prompts trained, not fetched."""
    epoch: float
    """The same position in passes over the data."""
    total_steps: int
    best_loss: float | None
    """Lowest validation loss so far; None before the first validation."""
    best_step: int | None
    config_digest: str
    data_fingerprint: str
    provenance: dict[str, Any]
    """Where teacher and student came from: paths and revisions."""
    versions: dict[str, str]
    """Library versions that wrote the checkpoint."""


@dataclass(frozen=True)
class Refusal:
    """A checkpoint that does not count, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} was refused: {self.reason}"


def require_space(run_dir: Path, student: Mapping[str, Tensor]) -> None:
    """Refuse to start a run whose disk cannot hold two checkpoints. Raises ResourceError (SKD-K03)."""
    # Two, since the new one is whole before the old one goes; three tensors per weight: itself and AdamW's moments.
    needed = 2 * 3 * _num_bytes(student)
    run_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        found = f"two checkpoints need {needed} bytes, and {free} bytes are free"
        raise ResourceError(Problem("SKD-K03", str(run_dir), found, "free space or choose another output"))


def _num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's directory name."""
    match = _STEP_NAME.fullmatch(checkpoint.name)
    assert match is not None, checkpoint
    return int(match[1])


def save(
    run_dir: Path,
    state: TrainState,
    student: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    config_yaml: str,
    *,
    keep: int,
) -> Path:
    """Write the checkpoint of ``state.step``, verify it, name the best, prune older ones; returns its directory.

    The newest ``max(keep, 2)`` and the best stay. Raises ResourceError (SKD-K03 disk full, SKD-K04 other faults of the
    disk) with the older checkpoints untouched, and CheckpointError (SKD-K05) when what was written does not read back.
    """
    directory = run_dir / "checkpoints"
    final = directory / f"step-{state.step}"
    with _disk_faults(run_dir, _num_bytes(student) + _num_bytes(optimizer)):
        directory.mkdir(parents=True, exist_ok=True)
        if final.exists() and defect(final) is None:
            return final
        temporary = directory / f".tmp-step-{state.step}-{os.getpid()}"
        _remove(temporary)
        try:
            _write(temporary, state, student, optimizer, config_yaml)
            _set_aside(final)
            os.rename(temporary, final)
        except OSError:
            _remove(temporary)
            raise
        fsync_directory(directory)
        _verify(final)
        if state.best_step is not None:
            best = {"checkpoint": f"step-{state.best_step}", "validation_loss": state.best_loss}
            write_atomic(run_dir / "best.json", json.dumps(best, indent=2) + "\n")
        point("save.prune")
        _prune(directory, keep=max(keep, 2), best_step=state.best_step)
    return final


def _write(
    directory: Path,
    state: TrainState,
    student: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    config_yaml: str,
) -> None:
    directory.mkdir(mode=0o700)
    point("save.open")
    records = {STUDENT_FILE: write_safetensors(directory / STUDENT_FILE, student)}
    point("save.model")
    records[OPTIMIZER_FILE] = write_safetensors(directory / OPTIMIZER_FILE, optimizer)
    point("save.optim")
    records[STATE_FILE] = write_hashed(directory / STATE_FILE, [canonical({"format": FORMAT, **asdict(state)})])
    records[CONFIG_FILE] = write_hashed(directory / CONFIG_FILE, [config_yaml.encode()])
    point("save.manifest")
    write_hashed(directory / MANIFEST_FILE, [manifest_bytes(records)])
    fsync_directory(directory)
    point("save.rename")


def _verify(checkpoint: Path) -> None:
    reason = defect(checkpoint)
    if reason is not None:
        raise CheckpointError(
            Problem("SKD-K05", str(checkpoint), f"the checkpoint just written is broken: {reason}", "check the disk")
        )


@contextmanager
def _disk_faults(run_dir: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        free = shutil.disk_usage(run_dir).free if run_dir.exists() else 0
        found = f"a checkpoint of about {needed} bytes could not be written with {free} bytes free ({error.strerror})"
        remedy = "free space" if full else "make the directory writable"
        raise ResourceError(
            Problem(
                "SKD-K03" if full else "SKD-K04",
                str(run_dir),
                found,
                f"{remedy} and resume; older checkpoints are untouched",
            )
        ) from error


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
    expected = {"format", *(field.name for field in fields(TrainState))}
    if state.get("format") != FORMAT or set(state) != expected:
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


def load(checkpoint: Path) -> tuple[TrainState, dict[str, Tensor], dict[str, Tensor]]:
    """State, student weights and optimizer tensors (on the CPU). Raises CheckpointError (SKD-K05) on a broken one."""
    # safetensors.torch is not needed to look for a checkpoint, only to read one.
    from safetensors.torch import load_file

    reason = defect(checkpoint)
    if reason is not None:
        raise CheckpointError(Problem("SKD-K05", str(checkpoint), reason, "use an older checkpoint"))
    return (
        read_state(checkpoint),
        load_file(checkpoint / STUDENT_FILE),
        load_file(checkpoint / OPTIMIZER_FILE),
    )


def read_state(checkpoint: Path) -> TrainState:
    """The state of a checkpoint that ``defect`` found whole."""
    values = json.loads((checkpoint / STATE_FILE).read_text())
    del values["format"]
    return TrainState(**values)


def _checkpoints(directory: Path) -> list[Path]:
    """Every ``step-N``, newest first."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if _STEP_NAME.fullmatch(path.name)), key=step_of, reverse=True)


def remove_stale(run_dir: Path) -> list[str]:
    """Remove what killed saves left in ``checkpoints``; returns the names. Call it under the run's lock."""
    directory = run_dir / "checkpoints"
    stale = sorted(directory.glob(".tmp-*")) if directory.is_dir() else []
    for path in stale:
        _remove(path)
    return [path.name for path in stale]


def _prune(directory: Path, *, keep: int, best_step: int | None) -> None:
    ours = [path for path in _checkpoints(directory) if _holds_our_manifest(path)]
    for checkpoint in ours[keep:]:
        if step_of(checkpoint) != best_step:
            # Renamed first, so that a kill while deleting leaves a .tmp name and no half checkpoint.
            doomed = directory / f".tmp-pruned-{checkpoint.name}-{os.getpid()}"
            os.rename(checkpoint, doomed)
            _remove(doomed)


def _holds_our_manifest(checkpoint: Path) -> bool:
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        return False
    try:
        read_manifest((checkpoint / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _set_aside(checkpoint: Path) -> None:
    """Give way to a new checkpoint of the same step without deleting the broken one."""
    if os.path.lexists(checkpoint):
        os.rename(checkpoint, checkpoint.with_name(f"refused-{checkpoint.name}-{os.getpid()}"))


def _remove(temporary: Path) -> None:
    assert temporary.name.startswith(".tmp-"), temporary
    if temporary.is_symlink() or temporary.is_file():
        temporary.unlink()
    elif temporary.exists():
        shutil.rmtree(temporary)

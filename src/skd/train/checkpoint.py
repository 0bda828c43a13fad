"""Checkpoints: directories of safetensors and JSON that are whole or do not count.

    run_dir/checkpoints/step-N/
        student.safetensors     float32 master weights by parameter name, tied ones once
        optimizer.safetensors   AdamW state: exp_avg.NAME, exp_avg_sq.NAME, step.NAME; and average.NAME, the weights of
                                a teacher that is a moving average of the student
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
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from skd.errors import CheckpointError, Problem, ResourceError
from skd.faults import point
from skd.files import canonical, fsync_directory, write_atomic, write_hashed, write_safetensors
from skd.manifest import (
    CONFIG_FILE,
    FORMAT,
    MANIFEST_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    STUDENT_FILE,
    manifest_bytes,
)
from skd.train.directory import defect, prune, remove, set_aside

__all__ = ["TrainState", "disk_faults", "load", "name_best", "read_state", "require_space", "save"]


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
    validation_pending: bool = False
    """A validation is due after this step and was not finished."""
    loss_scale: dict[str, Any] = field(default_factory=dict)
    """State of the scaler of the loss; empty where there is none."""


def require_space(run_dir: Path, student: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> None:
    """Refuse to start a run whose disk cannot hold two checkpoints. Raises ResourceError (SKD-K03)."""
    # Two, since the new one is whole before the old one goes; three tensors per weight: itself and AdamW's moments.
    needed = 2 * (3 * _num_bytes(student) + _num_bytes(average))
    run_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        found = f"two checkpoints need {needed} bytes, and {free} bytes are free"
        raise ResourceError(Problem("SKD-K03", str(run_dir), found, "free space or choose another output"))


def _num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


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
    with disk_faults(run_dir, f"a checkpoint of about {_num_bytes(student) + _num_bytes(optimizer)} bytes"):
        directory.mkdir(parents=True, exist_ok=True)
        if not final.exists() or defect(final) is not None:
            temporary = directory / f".tmp-step-{state.step}-{os.getpid()}"
            remove(temporary)
            try:
                _write(temporary, state, student, optimizer, config_yaml)
                set_aside(final)
                os.rename(temporary, final)
            except OSError:
                remove(temporary)
                raise
            fsync_directory(directory)
            point("save.verify")
            _verify(final)
        name_best(run_dir, state)
        point("save.prune")
        prune(directory, keep=max(keep, 2), best_step=state.best_step)
        point("save.done")
    return final


def name_best(run_dir: Path, state: TrainState) -> None:
    """Write which checkpoint is the best, if one is. The end of a save, and of one that was killed before this."""
    if state.best_step is not None:
        best = {"checkpoint": f"step-{state.best_step}", "validation_loss": state.best_loss}
        path, text = run_dir / "best.json", json.dumps(best, indent=2) + "\n"
        if not path.is_file() or path.read_bytes() != text.encode():
            write_atomic(path, text)


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
def disk_faults(run_dir: Path, what: str) -> Iterator[None]:
    """Turn a fault of the disk while ``what`` is written into ResourceError: SKD-K03 when it is full, SKD-K04 else."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        free = shutil.disk_usage(run_dir).free if run_dir.exists() else 0
        found = f"{what} could not be written with {free} bytes free ({error.strerror})"
        remedy = "free space" if full else "make the directory writable"
        raise ResourceError(
            Problem(
                "SKD-K03" if full else "SKD-K04",
                str(run_dir),
                found,
                f"{remedy} and resume; older checkpoints are untouched",
            )
        ) from error


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

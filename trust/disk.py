"""A disk that fills up, or fails, at any place of a save: the old checkpoint stays, the message names the bytes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from skd.faults import POINTS
from skd.train import retry
from skd.train.directory import defect
from trust.child import Ended, train
from trust.ends import differences
from trust.kills import inside_a_save
from trust.tally import Bench, Tally
from trust.toy import SAVE_EVERY, STEPS

__all__ = ["disk"]

MODE = "data_set"
STOPPED = f"step-{STEPS - 3 * SAVE_EVERY}"
"""The runs start here: three saves before the end."""
DISK_BYTES = 4 << 20
PAGE = 4096
_BEFORE_THE_END = [name for name in POINTS if inside_a_save(name) and name != "save.verify"]
"""Where a fault ends the save. A checkpoint that was renamed and is whole survives a fault while it is read back."""

Hook = Callable[[str], None]


def disk(bench: Bench) -> Tally:
    """Every point of a save, then every share of its bytes, then too little room from the start."""
    tally = Tally()
    base = _base(bench)
    for point in _BEFORE_THE_END:
        for number in (errno.ENOSPC, errno.EIO):
            _one(bench, tally, base, f"{os.strerror(number)} at {point}", _failing(point, number))
    weight = sum(path.stat().st_size for path in (base / "run" / "checkpoints" / STOPPED).iterdir())
    for number in range(bench.size.budgets):
        budget = number * weight // bench.size.budgets
        with _small_disk(bench.room / "disk") as mounted:
            hook = _fill(budget) if mounted else _limit(budget)
            kind = "full file systems" if mounted else "file size limits"
            _one(bench, tally, base, kind, hook, place=bench.room / "disk")
    with _small_disk(bench.room / "disk") as mounted:
        if mounted:
            _no_room(bench, tally, bench.room / "disk")
    return tally


def _base(bench: Bench) -> Path:
    """A run that was killed right after the save of ``STOPPED``."""
    directory = bench.room / "base"

    def hook(name: str) -> None:
        if name == "save.done" and (Path("run/checkpoints") / STOPPED).exists():
            os._exit(0)

    train(directory, bench.toy.config(MODE), hook=hook).wait()
    return directory


def _one(
    bench: Bench,
    tally: Tally,
    base: Path,
    kind: str,
    hook: Hook,
    *,
    place: Path | None = None,
) -> None:
    """Resume the base with a fault, look at what is left, and resume once more without it."""
    directory = (place or bench.room) / "trial"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(base, directory)
    config = bench.toy.config(MODE)
    ended = train(directory, config, hook=hook, prepare=_impatient).wait()
    complaints = _complaints(directory / "run", ended)
    (directory / "ballast").unlink(missing_ok=True)
    resumed = train(directory, config, "--resume", "must").wait()
    if resumed.code:
        complaints.append(f"exit code {resumed.code} on resume: {resumed.output[-500:]}")
    tally.note(kind, *complaints, *differences(directory / "run", bench.wholes[MODE].end))
    tally.counts["disk_full"] += 1


def _complaints(run_dir: Path, ended: Ended) -> list[str]:
    found = []
    if ended.code != 8 or "bytes free" not in ended.output or "Traceback" in ended.output:
        found.append(f"exit code {ended.code}: {ended.output[-500:]}")
    for checkpoint in (run_dir / "checkpoints").glob("step-*"):
        reason = defect(checkpoint)
        if reason is not None:
            found.append(f"{checkpoint.name} stands under its final name: {reason}")
    if defect(run_dir / "checkpoints" / STOPPED) is not None:
        found.append("the old checkpoint is gone")
    return found


def _impatient() -> None:
    retry.RETRY_SECONDS = (0.0, 0.0, 0.0)


def _failing(point: str, number: int) -> Hook:
    def hook(name: str) -> None:
        if name == point:
            raise OSError(number, os.strerror(number))

    return hook


def _fill(budget: int) -> Hook:
    """When the first save begins, the file system is filled until only ``budget`` bytes are free."""

    def hook(name: str) -> None:
        if name == "save.open" and not os.path.exists("ballast"):
            free = os.statvfs(".")
            with open("ballast", "wb") as ballast:
                ballast.write(bytes(max(free.f_bavail * free.f_bsize - budget, 1)))

    return hook


def _limit(budget: int) -> Hook:
    """Where nothing can be mounted: from the first save on no file may grow beyond ``budget`` bytes."""

    def hook(name: str) -> None:
        if name == "save.open":
            resource.setrlimit(resource.RLIMIT_FSIZE, (budget, budget))

    return hook


@contextmanager
def _small_disk(place: Path) -> Iterator[bool]:
    """A file system of a few MiB at ``place``; False where this user may not mount one."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    mounted = (
        shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def _no_room(bench: Bench, tally: Tally, place: Path) -> None:
    """Too little room for two checkpoints is found before the first step."""
    (place / "ballast").write_bytes(bytes(DISK_BYTES - PAGE * 64))
    ended = train(place / "trial", bench.toy.config(MODE)).wait()
    right = ended.code == 8 and "two checkpoints need" in ended.output and not ended.point
    tally.note("too little room from the start", *([] if right else [f"exit code {ended.code}: {ended.output[-500:]}"]))
    tally.counts["disk_full"] += 1

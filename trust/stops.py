"""SIGTERM and SIGINT in every phase of a step: a checkpoint, exit 128 + n, and an end as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from skd.train.directory import latest_whole
from trust.child import train
from trust.ends import differences
from trust.tally import Bench, Tally
from trust.toy import MODES, UNREACHED

__all__ = ["stops"]

PHASES = {
    "round": 50,
    "rollout": 50,
    "backward": 50,
    "step": 50,
    "validate": 3,
    "save.open": 15,
    "save.manifest": 15,
    "save.prune": 15,
}
"""Fault point -> how often a run reaches it for certain, before its last step."""
MOST_SECONDS = 10.0
"""From the signal to the exit: a step of the toy and a save, on a busy machine."""


def stops(bench: Bench) -> Tally:
    """Signals in every phase, the modes in turn."""
    tally = Tally()
    for number in range(bench.size.signals_per_phase * len(PHASES)):
        phase = list(PHASES)[number % len(PHASES)]
        able = [mode for mode in MODES if (mode, phase) not in UNREACHED]
        mode = able[number % len(able)]
        _one(bench, tally, phase, mode, bench.room / f"{number}-{mode}-{phase}")
    return tally


def _one(bench: Bench, tally: Tally, phase: str, mode: str, directory: Path) -> None:
    number = bench.random.choice([signal.SIGTERM, signal.SIGINT])
    config = bench.toy.config(mode)
    at = bench.random.randrange(PHASES[phase])
    stopped = train(directory, config, hook=_signal_at(phase, at, number)).wait()
    complaints = []
    if stopped.code != 128 + number:
        complaints.append(f"exit code {stopped.code} after {number.name}: {stopped.output[-500:]}")
    seconds = time.time() - (directory / "signalled").stat().st_mtime
    if seconds > MOST_SECONDS:
        complaints.append(f"{seconds:.1f} s from the signal to the exit")
    if latest_whole(directory / "run")[0] is None:
        complaints.append("no checkpoint was saved")
    resumed = train(directory, config, "--resume", "must").wait()
    if resumed.code:
        complaints.append(f"exit code {resumed.code} on resume: {resumed.output[-500:]}")
    complaints += differences(directory / "run", bench.wholes[mode].end)
    tally.note(f"{number.name} at {phase}", *(f"{directory}: {complaint}" for complaint in complaints))
    tally.counts["signals"] += 1


def _signal_at(phase: str, at: int, number: signal.Signals) -> Callable[[str], None]:
    left = [at]

    def hook(name: str) -> None:
        if name == phase and not left[0]:
            Path("signalled").touch()
            os.kill(os.getpid(), number)
        left[0] -= name == phase

    return hook

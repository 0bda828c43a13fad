"""One of two processes fails, is killed or gets stuck, at each phase of a run: both end soon, in plain words, and the
same command goes on to the same end, bit for bit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skd.errors import NumericsError, Problem, RemoteError
from trust.child import Ended, Hook
from trust.ends import end_of
from trust.processes import train_ranks
from trust.tally import Bench, Tally
from trust.toy import MODES, UNREACHED

__all__ = ["CONFIGURED", "failing", "stuck", "whole_of_two"]

STEPS = 12
SHORT: Mapping[str, Any] = {"max_steps": STEPS, "validate_every": 4}
LIMIT_SECONDS = 10.0
"""train.rank_timeout_seconds of a run in which a process gets stuck."""
CAUSE = "the loss is not finite"
CONFIGURED = ("config.yaml", "state.json", "manifest.json", "README.md")
"""Files in which the config, or a hash of it, stands."""

PHASES = {
    "start": ("start", 1),
    "sampling": ("round", 12),
    "forward and backward": ("backward", 12),
    "update": ("update", 12),
    "validation": ("validate", 3),
    "saving": ("save.model", 4),
}
"""Phase -> a fault point inside it, and how often a run reaches that for certain."""


def _raise() -> None:
    raise NumericsError(Problem("SKD-T01", "a trial", CAUSE, "do not try"))


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _sleep() -> None:
    time.sleep(3600)


FAULTS: Mapping[str, Callable[[], None]] = {"raise": _raise, "kill": _kill, "stop": _stop, "sleep": _sleep}
"""Two ways of being stuck: the whole process, as on a machine that swaps, and what it does, as on a dead disk."""


def failing(bench: Bench) -> Tally:
    """A process fails or is killed, at every phase; the ranks and the modes in turn."""
    return _trials(bench, lambda number: ("raise", "kill"))


def stuck(bench: Bench) -> Tally:
    """A process gets stuck, at every phase."""
    return _trials(bench, lambda number: ("stop",) if number % 2 else ("sleep",))


def _trials(bench: Bench, kinds: Callable[[int], Sequence[str]]) -> Tally:
    tally, wholes = Tally(), dict[str, dict[str, str]]()
    for number in range(bench.size.rank_faults):
        for place, phase in enumerate(PHASES):
            able = [mode for mode in MODES if (mode, PHASES[phase][0]) not in UNREACHED]
            mode = able[(number + place) % len(able)]
            if mode not in wholes:
                wholes[mode] = whole_of_two(bench, mode, f"whole-{mode}")
            for kind in kinds(number + place):
                _one(bench, tally, kind, phase, mode, wholes[mode])
    return tally


def whole_of_two(bench: Bench, mode: str, name: str, **train: str) -> dict[str, str]:
    """The end of a run of two processes that nothing disturbs. Raises RuntimeError when it does not end well."""
    directory = bench.room / name
    ended = train_ranks(directory, bench.toy.config(mode, **SHORT, **train), 2)
    if any(one.code for one in ended):
        raise RuntimeError(ended[0].output + ended[1].output)
    return end_of(directory / "run", STEPS)


def _one(bench: Bench, tally: Tally, kind: str, phase: str, mode: str, whole: dict[str, str]) -> None:
    directory = bench.room / f"{tally.counts['rank_faults']}-{kind}-{phase.replace(' ', '-')}-{mode}"
    # Only the main process saves.
    rank = 0 if phase == "saving" else bench.random.randrange(2)
    point, reached = PHASES[phase]
    hook = _at(point, bench.random.randrange(reached), FAULTS[kind])
    is_stuck = kind in ("stop", "sleep")
    config = bench.toy.config(mode, **SHORT, **({"rank_timeout_seconds": LIMIT_SECONDS} if is_stuck else {}))
    ended = train_ranks(directory, config, 2, {rank: hook})
    seconds = time.time() - (directory / "struck").stat().st_mtime - (LIMIT_SECONDS if is_stuck else 0.0)
    complaints = _wrong(kind, rank, ended)
    if seconds > bench.size.seconds_to_end:
        complaints.append(f"{seconds:.1f} s until both had ended")
    resumed = train_ranks(directory, config, 2)
    complaints += [f"exit code {one.code} on resume: {one.output[-500:]}" for one in resumed if one.code]
    complaints += _different(directory, whole)
    tally.note(f"{'stuck' if is_stuck else kind} at {phase}", *(f"{directory}: {each}" for each in complaints))
    tally.counts["rank_faults"] += 1
    tally.most("seconds_to_end", seconds)


def _different(directory: Path, whole: dict[str, str]) -> list[str]:
    found = end_of(directory / "run", STEPS)
    different = [name for name in whole if not name.endswith(CONFIGURED) and found.get(name) != whole[name]]
    return [f"{', '.join(different)} differ from the undisturbed run"] if different else []


def _wrong(kind: str, rank: int, ended: list[Ended]) -> list[str]:
    """What is wrong with the ends of the process that failed and of the other one."""
    failed, other = ended[rank], ended[1 - rank]
    expected = {"raise": [NumericsError.exit_code], "kill": [-signal.SIGKILL], "stop": [-signal.SIGKILL]}
    said = {"raise": f"rank {rank} did: error[SKD-T01] a trial: {CAUSE}", "kill": f"rank {rank} (last heard of at "}
    wrong = [f"rank {number} hung" for number, one in enumerate(ended) if one.hung]
    if failed.code not in expected.get(kind, [RemoteError.exit_code, -signal.SIGKILL]):
        wrong.append(f"exit code {failed.code} of the process that failed: {failed.output[-500:]}")
    if (
        other.code != RemoteError.exit_code
        or said.get(kind, f"SKD-P03] rank {1 - rank}: rank {rank} (last heard of at ") not in other.output
    ):
        wrong.append(f"exit code {other.code} of the other one: {other.output[-500:]}")
    return wrong


def _at(point: str, number: int, fault: Callable[[], None]) -> Hook:
    left = [number]

    def hook(name: str) -> None:
        if name == point and not left[0]:
            Path("struck").touch()
            left[0] -= 1
            fault()
        left[0] -= name == point

    return hook

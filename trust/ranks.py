"""Runs whose number of processes changes from kill to kill: the rows trained on, and their order, stay the same.

Sums over two processes are rounded otherwise than over one, so the weights are close to those of one process, not equal
bit by bit; and a sampled response may then be another one. So the weights are compared where the data set writes the
responses, and in the other modes what was trained on, and that no step is missing or there twice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from skd.errors import RemoteError
from trust.child import Ended, train
from trust.processes import train_ranks
from trust.tally import Bench, Tally
from trust.toy import MODES, STEPS

__all__ = ["STEADY", "killed_after", "ranks", "rows_of", "unlike"]

CLOSE = 1e-5
"""Largest difference of a weight, after all steps."""
_KILLS = 4
"""Of each run; the number of processes changes at each."""
STEADY = {"eps": 0.01}
"""A large eps keeps the updates smooth in the gradients: Adam's own would turn rounding near 0 into whole steps."""


def ranks(bench: Bench) -> Tally:
    """The modes in turn, started with two processes, then with one, and so on."""
    tally = Tally()
    for number in range(bench.size.rank_changes):
        mode = list(MODES)[number % len(MODES)]
        _one(bench, tally, mode, 2 - number // len(MODES) % 2)
    return tally


def _one(bench: Bench, tally: Tally, mode: str, world_size: int) -> None:
    config = {**bench.toy.config(mode, **STEADY), "student": str(bench.toy.directory / "steady")}
    whole = bench.room / f"whole-{mode}"
    if not whole.exists():
        train(whole, config).wait()
    directory = bench.room / f"{mode}-{tally.counts['runs compared']}"
    steps = STEPS // (_KILLS + 1)
    for _ in range(_KILLS):
        ended = train_ranks(directory, config, world_size, {0: killed_after(bench.random.randrange(3, steps))})
        dead = [ended[0].code == -signal.SIGKILL and not ended[0].hung, *map(_left_alone, ended[1:])]
        kind = f"kills of {world_size} process{'es' if world_size > 1 else ''}"
        tally.note(kind, *([] if all(dead) else [f"{directory}: {ended[-1].output[-500:]}"]))
        tally.counts["rank_changes"] += 1
        world_size = 3 - world_size
    last = train_ranks(directory, config, world_size)
    complaints = [f"exit code {one.code}: {one.output[-500:]}" for one in last if one.code]
    tally.note("runs compared", *complaints, *unlike(directory / "run", whole / "run", mode))


def _left_alone(ended: Ended) -> bool:
    """The process saw that the other one is gone, said so and ended."""
    return ended.code == RemoteError.exit_code and "error[SKD-P02]" in ended.output and not ended.hung


def killed_after(steps: int) -> Callable[[str], None]:
    """A hook that kills its process at the end of that many steps."""
    left = [steps]

    def hook(name: str) -> None:
        left[0] -= name == "step"
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def unlike(run: Path, whole: Path, mode: str, num_steps: int = STEPS) -> list[str]:
    """What is not as in the run of one process."""
    if (run / "trained.jsonl").read_bytes() != (whole / "trained.jsonl").read_bytes():
        return [f"{run}: other rows or another order"]
    steps = [row["step"] for row in rows_of(run / "metrics.jsonl") if "lr" in row]
    if steps != list(range(1, num_steps + 1)):
        return [f"{run}: the steps of the log are {steps}"]
    last = Path("checkpoints", f"step-{num_steps}", "student.safetensors")
    weights, expected = load_file(run / last), load_file(whole / last)
    difference = max((weights[name] - expected[name]).abs().max().item() for name in expected)
    if mode == "data_set" and not difference <= CLOSE:
        return [f"{run}: a weight differs by {difference:.1e}"]
    shutil.rmtree(run.parent)
    return []


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]

"""A run that torchrun started, one of whose processes is stopped or killed: nothing of it is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from trust.child import LIMIT_SECONDS
from trust.ends import differences, end_of
from trust.processes import free_port, train_ranks
from trust.tally import Bench, Tally

__all__ = ["launched"]

STEPS = 30
"""Enough that none is over before the signal, which is sent after the third."""
STUCK_SECONDS = 10.0


def launched(bench: Bench) -> Tally:
    """Stopped and killed in turn."""
    tally, config = Tally(), bench.toy.config("skd", max_steps=STEPS, rank_timeout_seconds=STUCK_SECONDS)
    train_ranks(bench.room / "whole", config, 2)
    expected = end_of(bench.room / "whole" / "run", STEPS)
    for number in range(bench.size.launches):
        fault = signal.SIGKILL if number % 2 else signal.SIGSTOP
        directory = bench.room / f"{number}-{fault.name}"
        directory.mkdir()
        (directory / "run.yaml").write_text(json.dumps(config))
        complaints = _struck(directory, fault)
        resumed = train_ranks(directory, config, 2)
        complaints += [f"exit code {one.code} on resume: {one.output[-500:]}" for one in resumed if one.code]
        complaints += differences(directory / "run", expected, STEPS)
        tally.note(f"{fault.name} under torchrun", *(f"{directory}: {complaint}" for complaint in complaints))
        tally.counts["launches"] += 1
    return tally


def _struck(directory: Path, fault: signal.Signals) -> list[str]:
    """Send the signal to the second process once a checkpoint is there; what is wrong with the end."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [*command, "-m", "skd", "train", "run.yaml"], cwd=directory, env=environment, stdout=log, stderr=log
        ) as launcher,
    ):
        deadline = time.monotonic() + LIMIT_SECONDS
        while not (directory / "run/checkpoints/step-3").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        ranks = _children(launcher.pid)
        if 1 in ranks:
            os.kill(ranks[1], fault)
        try:
            launcher.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            launcher.kill()
    output = (directory / "log").read_text(errors="replace")
    complaints = [f"rank {rank} was left running" for rank, pid in ranks.items() if _runs(pid)]
    if len(ranks) != 2 or launcher.returncode != 1:
        complaints.append(f"{len(ranks)} processes, exit code {launcher.returncode}: {output[-500:]}")
    if ("error[SKD-P03] rank 0: rank 1 " if fault == signal.SIGSTOP else "SIGKILL") not in output:
        complaints.append(f"the cause was not said: {output[-1000:]}")
    return complaints


def _children(pid: int) -> dict[int, int]:
    """Rank -> process of those that a launcher has started."""
    ranks = dict[int, int]()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks |= {int(entry[5:]): int(child) for entry in variables if entry.startswith(b"RANK=")}
    return ranks


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

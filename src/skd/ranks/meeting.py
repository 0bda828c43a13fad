"""How the processes of a run find each other, and that they are about to do the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, gather
from torch.distributed import distributed_c10d

from skd.errors import ConfigError, Problem, RemoteError

__all__ = ["meet", "require_same"]

MEETING_SECONDS = 60.0
"""How long a process waits for the others to be there. They start together."""
_WITHOUT_LIMIT = timedelta(days=1)


def meet(*, cpu: bool = False) -> Accelerator:
    """The processes that a launcher has started, as accelerate sees them; one that was started by hand is alone.

    Raises RemoteError (SKD-P09) when they do not find each other within a minute.
    """
    if not several():
        return Accelerator(mixed_precision="no", cpu=cpu)
    # Without a GPU, accelerate takes each process for a run of its own unless it is told.
    cpu = cpu or not torch.cuda.is_available()
    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=MEETING_SECONDS))
    try:
        accelerator = Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[waiting])
    except (RuntimeError, ValueError, OSError) as error:
        raise _apart(error) from error
    # From here on ``skd.ranks.peers`` knows a process that is stuck from one that has more to do than the others.
    distributed_c10d._set_pg_timeout(_WITHOUT_LIMIT)
    return accelerator


def several() -> bool:
    """Whether a launcher has started more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _apart(error: Exception) -> RemoteError:
    rank, size, address, port = (
        os.environ.get(name, "?") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    )
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    found = f"the {size} processes did not find each other at {address}:{port} ({reason[:200]})"
    remedy = "look whether all were started, at WORLD_SIZE, at MASTER_ADDR, and whether MASTER_PORT is free"
    return RemoteError(Problem("SKD-P09", f"rank {rank}", found, remedy))


def require_same(facts: Mapping[str, str]) -> None:
    """Every process must call it with the same names. Raises ConfigError (SKD-P07) for facts that differ."""
    if not several():
        return
    mine = [int.from_bytes(hashlib.blake2b(fact.encode(), digest_size=7).digest(), "big") for fact in facts.values()]
    everyone = gather(torch.tensor([mine], device=PartialState().device))
    differing = (everyone != everyone[0]).tolist()
    problems = [
        Problem("SKD-P07", f"rank {rank}", f"another {name} than rank 0", "start all processes with the same")
        for rank, row in enumerate(differing)
        for name, differs in zip(facts, row, strict=True)
        if differs
    ]
    if problems:
        raise ConfigError(problems)

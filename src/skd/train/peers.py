"""Several processes of one run: when one ends, the others say which one it was and why, and end as well.

The first process that fails leaves one line in ``.first-cause`` of the run directory; what the others then meet is a
broken connection. A process that was killed leaves nothing, and that is said, too.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import Accelerator

from skd.errors import Problem, RemoteError
from skd.files import write_atomic

__all__ = ["as_one"]

CAUSE_FILE = ".first-cause"
PATIENCE_SECONDS = 2.0
"""How long the cause may take to appear: a process writes it and then closes its connections."""
_LOST = re.compile(r"connection (closed|reset|refused|was)|broken pipe|timed out|gloo|nccl", re.IGNORECASE)


@contextmanager
def as_one(accelerator: Accelerator, run_dir: Path) -> Iterator[None]:
    """Around all that the processes of a run do together.

    Raises RemoteError (SKD-P02) in place of what a lost connection to another process raises.
    """
    if accelerator.num_processes == 1:
        yield
        return
    cause, rank = run_dir / CAUSE_FILE, int(accelerator.process_index)
    try:
        if accelerator.is_main_process:
            cause.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        yield
    except Exception as error:
        if _is_lost_connection(error):
            raise _lost(cause, rank) from error
        _leave(cause, rank, error)
        raise


def _is_lost_connection(error: Exception) -> bool:
    """Whether an error is that of a collective whose peers have gone: torch raises RuntimeErrors of several classes."""
    told = type(error).__name__.startswith("Dist") or _LOST.search(str(error))
    return isinstance(error, RuntimeError) and bool(told)


def _leave(cause: Path, rank: int, error: Exception) -> None:
    first = str(error).strip().splitlines()
    text = json.dumps({"rank": rank, "cause": first[0] if first else type(error).__name__})
    with suppress(OSError):
        if not cause.exists():
            write_atomic(cause, text)


def _lost(cause: Path, rank: int) -> RemoteError:
    place, found = f"rank {rank}", "lost another process of the run, which left no word: it was killed, or is stuck"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and not cause.exists():
        time.sleep(0.05)
    with suppress(OSError, ValueError, LookupError, TypeError):
        left = json.loads(cause.read_text(encoding="utf-8"))
        found = f"stopped because rank {left['rank']} did: {left['cause']}"
    remedy = "look at its output and at the memory of its machine, and resume with the same command"
    return RemoteError(Problem("SKD-P02", place, found, remedy))

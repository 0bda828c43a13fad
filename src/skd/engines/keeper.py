"""Run a command for as long as standard input stays open: ``python keeper.py DIRECTORY COMMAND ...``.

A child of a process that is killed lives on. This one reads a pipe that ends with its parent, whatever ends the parent,
then ends the command with all its processes and removes the directory. Run by its path: it imports nothing of the
package.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress

__all__ = ["keep"]

_GRACE = 20.0
"""Seconds for an orderly end."""


def keep(directory: str, command: list[str]) -> int:
    """The exit status of ``command``, which ends at the latest with standard input."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    over = threading.Event()
    threading.Thread(target=_end_with_input, args=(child, over), daemon=True).start()
    status = child.wait()
    _signal(child, signal.SIGKILL)  # what the command left behind
    if over.is_set():
        shutil.rmtree(directory, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _end_with_input(child: subprocess.Popen[bytes], over: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    over.set()
    _signal(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)
    _signal(child, signal.SIGKILL)


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent decides
    raise SystemExit(keep(sys.argv[1], sys.argv[2:]))

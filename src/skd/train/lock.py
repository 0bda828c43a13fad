"""One process per run directory."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from pathlib import Path
from types import TracebackType

from skd.errors import CheckpointError, Problem, ResourceError

__all__ = ["RunLock"]


class RunLock:
    """Holds ``run_dir/.lock`` while a run writes into the directory.

    The kernel drops the lock when the holder ends, however it ends, so a lock left by a dead process or an earlier boot
    is simply free. The file stays; its text only says who holds it.

    Raises CheckpointError (SKD-K16) when another process holds the lock, ResourceError (SKD-K04) when the directory
    cannot be made or written to.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / ".lock"
        self._fd = -1

    def __enter__(self) -> RunLock:
        self._fd = self._opened()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 1000).decode("utf-8", "replace").strip()
            os.close(self._fd)
            raise CheckpointError(
                Problem(
                    "SKD-K16",
                    str(self._path.parent),
                    f"another process is using this run directory: {holder or 'not yet named'}",
                    "wait for it, stop it, or choose another output",
                )
            ) from None
        self._write_holder()
        return self

    def _opened(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            found = f"the run directory cannot be made or written to ({error.strerror})"
            remedy = "set output to a directory that can be written"
            raise ResourceError(Problem("SKD-K04", str(self._path.parent), found, remedy)) from error

    def _write_holder(self) -> None:
        holder = json.dumps({"pid": os.getpid(), "host": platform.node()})
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, holder.encode(), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

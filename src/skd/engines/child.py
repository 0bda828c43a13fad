"""A vLLM server as a child process, in an environment of its own, on a socket that only this user can reach.

Weights are changed by an interface that vLLM gives for development (``VLLM_SERVER_DEV_MODE``): whoever reaches it can
call any method of a worker. So it listens on no port, and its socket lies in a directory of mode 0700.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from skd.config.credentials import is_secret_variable
from skd.engines import keeper
from skd.engines.transport import Call, Limits, Transport
from skd.errors import Problem, RemoteError
from skd.text import shortened, visible

__all__ = ["NAME", "Child", "Launch", "Starting", "launch", "wait_for"]

NAME = "model"
"""What the child calls the model that it serves."""
_PER_PROCESS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_NOT_ITS = ("TORCHELASTIC_", "ROLE_", "PYTHON", "VIRTUAL_ENV")
"""Beginnings of names of the environment that are about this process and not about the child."""
_ONE_TRY = Limits(connect=5.0, silence=5.0, total=5.0, tries=1)
_CLOSING = 40.0


@dataclass(frozen=True)
class Starting:
    """What a child is started with."""

    python: str
    """Of the environment that vLLM is in."""
    room: Path
    """A private directory: the model in ``model``, the socket, the log."""
    dtype: str
    context: int
    """Tokens of the longest prompt with its response."""
    slots: int
    device: torch.device
    gpu_memory: float
    options: tuple[str, ...] = ()
    """Further ones of its command line."""

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return self.room / "socket"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.room / "log"

    @property
    def command(self) -> list[str]:
        """Arguments of its server; options were read in vLLM 0.32.0."""
        keys = {
            "--model": self.room / "model",
            "--served-model-name": NAME,
            "--uds": self.socket,
            "--dtype": self.dtype,
            "--load-format": "safetensors",
            "--max-model-len": self.context,
            "--max-num-seqs": self.slots,
            "--generation-config": "vllm",
        }
        if self.device.type == "cuda":
            keys["--gpu-memory-utilization"] = self.gpu_memory
        options = [str(part) for pair in keys.items() for part in pair]
        # A cached prefix would be one of older weights, and makes answers depend on the order of requests.
        options.append("--no-enable-prefix-caching")
        if self.device.type == "cpu":
            options.append("--enforce-eager")
        return [self.python, "-m", "vllm.entrypoints.openai.api_server", *options, *self.options]

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Of the child: without keys, and without what concerns this process."""
        kept = {
            name: value
            for name, value in ours.items()
            if not is_secret_variable(name) and name not in _PER_PROCESS and not name.startswith(_NOT_ITS)
        }
        if self.device.type == "cuda":
            visible_ones = [part for part in ours.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
            number = self.device.index or 0
            kept["CUDA_VISIBLE_DEVICES"] = visible_ones[number] if visible_ones else str(number)
        own = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        return kept | own


class Child(Protocol):
    """A process that was started."""

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        ...

    def close(self) -> None:
        """End it."""
        ...


Launch = Callable[[Starting], Child]


def launch(starting: Starting) -> Child:
    """Start vLLM. It ends with this process, however that ends."""
    with starting.log.open("wb") as log:
        process = subprocess.Popen(
            # The environment is vLLM's; the keeper needs nothing of it.
            [sys.executable, "-S", str(Path(keeper.__file__)), str(starting.room), *starting.command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=starting.environment(os.environ),
            start_new_session=True,
        )
    return _Kept(process)


@dataclass(frozen=True)
class _Kept:
    process: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        return self.process.poll()

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(_CLOSING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def new_room() -> Path:
    """A directory that only this user can enter; short, since the path of a socket has at most 107 characters."""
    return Path(tempfile.mkdtemp(prefix="skd-"))


def remove(child: Child, room: Path) -> None:
    """End a child and remove what was its own."""
    child.close()
    shutil.rmtree(room, ignore_errors=True)


def wait_for(child: Child, starting: Starting, seconds: float) -> None:
    """Until it answers. Raises RemoteError (SKD-V06) when it ends first, or does not answer within ``seconds``."""
    deadline = time.monotonic() + seconds
    transport = Transport(f"unix:{starting.socket}", _ONE_TRY, 1)
    while True:
        if (status := child.poll()) is not None:
            raise ended(status, starting)
        with suppress(RemoteError):
            transport.one(Call("/version"))
            return
        if time.monotonic() > deadline:
            found = f"did not answer within {seconds:g} seconds"
            remedy = "raise sampling.rollouts.start_seconds"
            raise RemoteError(Problem("SKD-V06", "vLLM for the rollouts", found + _said(starting.log), remedy))
        time.sleep(0.5)


def ended(status: int, starting: Starting) -> RemoteError:
    """The error (SKD-V06) for a child that is gone."""
    found = f"ended with status {status}{_said(starting.log)}"
    return RemoteError(Problem("SKD-V06", "vLLM for the rollouts", found, "mend that, then run the same command"))


def _said(log: Path) -> str:
    """The last error in the log, for a message."""
    try:
        lines = log.read_bytes()[-200_000:].decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if "Error" in line] or [line for line in lines if line.strip()]
    return f": {shortened(visible(_first_cause(errors)), 300)}" if errors else ""


def _first_cause(lines: Sequence[str]) -> str:
    # The line of a worker comes before those of the processes that lost it.
    return next((line for line in lines if "Error:" in line), lines[-1])

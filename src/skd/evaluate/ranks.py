"""An evaluation over several processes: each writes and judges its share, and all end up with all samples."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from skd.errors import Problem, RemoteError

__all__ = ["Ranks"]

_LOST = re.compile(r"connection|broken pipe|timed out|gloo|nccl", re.IGNORECASE)
_PATIENCE = timedelta(hours=24)
"""The others wait while the first one measures against the teacher, by COMET and by EvalPlus, between two tasks."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_launcher(cls) -> Ranks:
        """Those that torchrun or accelerate started; a process started by hand is alone."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        # Without a GPU, accelerate takes each process for a run of its own unless it is told.
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
        return cls(int(state.process_index), int(state.num_processes))

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def device(self) -> str | torch.device:
        """This process's own device; ``auto`` for one that is alone."""
        if self.size == 1:
            return "auto"
        from accelerate import PartialState

        return torch.device(PartialState().device)

    def share(self, items: Sequence[int]) -> list[int]:
        """Every ``size``-th item, from this rank on."""
        return list(items[self.rank :: self.size])

    def gathered(self, values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """JSON objects of all ranks, in the order of the ranks. All ranks must call it.

        Raises RemoteError (SKD-P02) when another one is gone.
        """
        if self.size == 1:
            return list(values)
        # As JSON in a tensor: torch's own exchange of objects is pickle.
        text = torch.frombuffer(bytearray(json.dumps(list(values)).encode()), dtype=torch.uint8).to(self.device)
        try:
            return _gathered(text)
        except RuntimeError as error:
            if not _LOST.search(str(error)):
                raise
            found, remedy = "another process of this evaluation is gone", "look at its output; the same command goes on"
            raise RemoteError(Problem("SKD-P02", f"process {self.rank}", found, remedy)) from error


def _gathered(text: torch.Tensor) -> list[dict[str, Any]]:
    from accelerate.utils import gather, pad_across_processes

    lengths = gather(torch.tensor([len(text)], device=text.device)).tolist()
    parts = gather(pad_across_processes(text)[None])
    return [value for part, n in zip(parts, lengths, strict=True) for value in _read(part[:n])]


def _read(text: torch.Tensor) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = json.loads(bytes(text.tolist()))
    return values

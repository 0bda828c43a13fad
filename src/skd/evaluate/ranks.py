"""An evaluation over several processes: each writes and judges its share, and all end up with all samples."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from skd.ranks.meeting import meet, several
from skd.ranks.peers import Limit, as_one

__all__ = ["Ranks"]

_LIMIT = Limit(1800.0, "--rank-timeout")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    limit: Limit = _LIMIT

    @classmethod
    def of_launcher(cls, timeout_seconds: float = _LIMIT.seconds) -> Ranks:
        """Those that torchrun or accelerate started; a process started by hand is alone.

        Raises RemoteError (SKD-P09) when they do not find each other.
        """
        if not several():
            return cls()
        accelerator = meet()
        limit = replace(_LIMIT, seconds=timeout_seconds)
        return cls(int(accelerator.process_index), int(accelerator.num_processes), limit)

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """Around all that they do together. Raises RemoteError (SKD-P02, SKD-P03) as ``skd.ranks.peers`` does."""
        if self.size == 1:
            yield
            return
        made = tempfile.mkdtemp(prefix="skd-ranks-") if self.is_main else ""
        directory = Path(self.gathered([{"directory": made}])[0]["directory"])
        with as_one(directory, self.limit):
            yield
        # Not where one failed: the others read the cause in it.
        if self.is_main:
            shutil.rmtree(directory, ignore_errors=True)

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
        """JSON objects of all ranks, in the order of the ranks. All ranks must call it."""
        if self.size == 1:
            return list(values)
        from accelerate.utils import gather, pad_across_processes

        # As JSON in a tensor: torch's own exchange of objects is pickle.
        text = torch.frombuffer(bytearray(json.dumps(list(values)).encode()), dtype=torch.uint8).to(self.device)
        lengths = gather(torch.tensor([len(text)], device=text.device)).tolist()
        parts = gather(pad_across_processes(text)[None])
        return [value for part, n in zip(parts, lengths, strict=True) for value in _read(part[:n])]


def _read(text: torch.Tensor) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = json.loads(bytes(text.tolist()))
    return values

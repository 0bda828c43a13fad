"""A run of ``skd`` in several processes, as a launcher would start them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed

from skd import cli
from trust.child import LIMIT_SECONDS, Child, Ended, Hook, fork

__all__ = ["Work", "free_port", "start_ranks", "train_ranks"]

Work = Callable[[int], int | None]
"""What a process does, given its rank; returns its exit code."""


def train_ranks(
    directory: Path, config: Mapping[str, Any], world_size: int, hooks: Mapping[int, Hook] | None = None
) -> list[Ended]:
    """Train in so many processes and wait for all; ``hooks`` by rank."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.yaml").write_text(json.dumps(config))
    children = start_ranks(directory, lambda rank: cli.main(["train", "run.yaml"]), world_size, hooks)
    return [child.wait(4 * LIMIT_SECONDS) for child in children]


def start_ranks(directory: Path, work: Work, world_size: int, hooks: Mapping[int, Hook] | None = None) -> list[Child]:
    """So many processes that do ``work`` in ``directory``, and find each other over gloo."""
    port = free_port()
    hooks = hooks or {}
    return [_rank(directory, work, rank, world_size, port, hooks.get(rank)) for rank in range(world_size)]


def _rank(directory: Path, work: Work, rank: int, world_size: int, port: int, hook: Hook | None) -> Child:
    def started() -> int | None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="true")
        return work(rank)

    def reached(name: str) -> None:
        # A launcher that starts one process where two were asked for would make this part say nothing.
        if world_size > 1 and torch.distributed.get_world_size() != world_size:
            raise RuntimeError("the processes have not found each other")
        if hook is not None:
            hook(name)

    return fork(started, directory, hook=reached, log=f"log-{rank}")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

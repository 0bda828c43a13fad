"""Where in the responses the gate keeps and where the teacher writes: counts by position, for the report."""

from __future__ import annotations

import torch
from torch import Tensor

from skd.train.run import Run
from skd.types import TEACHER, Rollout

__all__ = ["BOUNDS", "positions"]

BOUNDS = (0, *(4 << power for power in range(12)))
"""First positions of the ranges that are counted together: 0, 4, 8, 16 ... 8192."""


def positions(run: Run, rollout: Rollout) -> dict[str, list[int]]:
    """Counts over all ranks for each range of response positions, up to the last that holds a token.

    ``from``: its first position; ``kept`` and ``replaced``: drafted tokens by the gate's verdict; ``tokens`` and
    ``written``: response tokens, and those of them that the teacher wrote.
    """
    stats, authors = rollout.stats, rollout.authors
    place = torch.cat([torch.arange(len(row)) for row in authors]) if authors else torch.zeros(0, dtype=torch.long)
    by_teacher = torch.cat(list(authors)) == TEACHER if authors else torch.zeros(0, dtype=torch.bool)
    counts = [
        _ranges(torch.arange(len(stats.kept_by_position)), stats.kept_by_position),
        _ranges(torch.arange(len(stats.replaced_by_position)), stats.replaced_by_position),
        _ranges(place, torch.ones_like(place)),
        _ranges(place, by_teacher.long()),
    ]
    total = torch.tensor(run.total(torch.stack(counts).flatten().tolist())).reshape(4, -1).long()
    used = int((total[2] > 0).sum())
    named = zip(("kept", "replaced", "tokens", "written"), total[:, :used].tolist(), strict=True)
    return {"from": list(BOUNDS[:used]), **dict(named)}


def _ranges(place_N: Tensor, count_N: Tensor) -> Tensor:
    """Counts [ranges] of counts at positions."""
    index_N = torch.bucketize(place_N, torch.tensor(BOUNDS), right=True) - 1
    return torch.zeros(len(BOUNDS), dtype=torch.long).index_add_(0, index_N, count_N.cpu().long())

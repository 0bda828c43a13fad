"""Where the time and the memory of a step went, for the logs."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence

import torch

from skd.types import Rollout, SamplerStats

__all__ = ["padding", "peak_mb", "split_of_step"]


def split_of_step(sampler: SamplerStats, training: Mapping[str, float]) -> dict[str, float]:
    """Seconds by part of a step: what the sampler says of itself, and the laps of the training after it.

    ``rest`` is the sampler's own bookkeeping. The loss takes its gradient for the head while it is computed, so that
    part of the backward pass counts as ``forward``.
    """
    sync = {"seconds_sync": sampler.seconds_sync} if sampler.seconds_sync else {}
    return {
        **sync,
        "seconds_prefill": sampler.seconds_prefill,
        "seconds_draft": sampler.seconds_draft,
        "seconds_judge": sampler.seconds_judge,
        "seconds_rest": sampler.seconds_rest,
        "seconds_evidence": sampler.seconds_evidence + training.get("evidence", 0.0),
        **{f"seconds_{part}": training.get(part, 0.0) for part in ("data", "forward", "backward", "optimiser")},
    }


def padding(rollout: Rollout, batches: Sequence[Sequence[int]]) -> float | None:
    """Share of the micro-batches' positions that are padding; None without any."""
    lengths = [
        [len(rollout.prompt_ids[row]) + len(rollout.response_ids[row]) for row in rows] for rows in batches if rows
    ]
    padded = sum(len(rows) * max(rows) for rows in lengths)
    return 1.0 - sum(map(sum, lengths)) / padded if padded else None


def peak_mb(device: torch.device) -> float:
    """Highest memory so far, in MB: allocated on a CUDA device, otherwise resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6

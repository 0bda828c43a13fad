"""Seconds by phase of a rollout or of a step."""

from __future__ import annotations

import time
from collections import defaultdict

import torch

__all__ = ["Clock"]


class Clock:
    """Seconds by phase: wall time on the CPU, event time on CUDA so that no phase waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._laps: list[tuple[str, float | torch.cuda.Event]] = []
        self.lap("start")

    def lap(self, phase: str) -> None:
        """Book the time since the last lap on ``phase``."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._laps.append((phase, event))
        else:
            self._laps.append((phase, time.perf_counter()))

    def seconds(self) -> defaultdict[str, float]:
        """Total by phase; 0 for a phase that had no lap."""
        if self._cuda:
            torch.cuda.synchronize()
        totals: defaultdict[str, float] = defaultdict(float)
        for (_, before), (phase, after) in zip(self._laps, self._laps[1:], strict=False):
            if isinstance(before, float) and isinstance(after, float):
                totals[phase] += after - before
            elif isinstance(before, torch.cuda.Event) and isinstance(after, torch.cuda.Event):
                totals[phase] += before.elapsed_time(after) / 1000.0
        return totals

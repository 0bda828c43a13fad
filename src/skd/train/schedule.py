"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Shape", "lr_factor"]

Shape = Literal["constant", "linear", "cosine"]


def lr_factor(step: int, total_steps: int, *, warmup: float, shape: Shape) -> float:
    """Factor in (0, 1] on the peak learning rate for update number ``step``, counted from 0.

    The first ``warmup`` share of the steps rises linearly to 1; then the factor stays (constant), or falls towards 0,
    which it would reach one step after the last: no update is spent on a rate of 0, neither the first nor the last.
    """
    warmup_steps = round(warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    if shape == "constant":
        return 1.0
    if shape == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))

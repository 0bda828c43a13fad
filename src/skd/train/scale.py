"""The factor that lifts float16 gradients out of underflow (Micikevicius et al., 2018, arXiv 1710.03740).

Under ``train.precision: fp16`` the loss is multiplied by it before the backward pass and the gradients are divided by
it. Where one of them is not finite the update is left out and the factor halved; after 2,000 updates it is doubled
(``torch.amp.GradScaler``). A scaler that is not enabled leaves everything as it is.
"""

from __future__ import annotations

import torch
from torch.amp import GradScaler

from skd.errors import NumericsError, Problem
from skd.train.nonfinite import write_dump_of
from skd.train.run import Run
from skd.types import Rollout

__all__ = ["loss_scaler", "overflowed", "refuse_smallest"]

SMALLEST = 1.0
"""A factor below it would only make gradients smaller; a new run is there after 16 overflows."""


def loss_scaler(precision: str, device: torch.device) -> GradScaler:
    """Enabled for "fp16" alone."""
    return GradScaler(device.type, enabled=precision == "fp16")


def overflowed(run: Run) -> bool:
    """Whether the factor was too large for the gradients that are in the student, divided again."""
    if not run.scaler.is_enabled():
        return False
    return not all(bool(torch.isfinite(gradient).all()) for _, gradient in run.spread.gradients())


def refuse_smallest(run: Run, step: int, loss: float | int | None, rollout: Rollout) -> None:
    """Raises NumericsError (SKD-T11), with the step written down, where halving the factor again is of no use."""
    if run.scaler.get_scale() > SMALLEST:
        return
    path = write_dump_of(run, step, loss, float("inf"), rollout)
    found = f"gradients overflow float16 even with a loss scale of 1; no update was made; the responses are in {path}"
    remedy = "write train.precision: bf16 or fp32, and resume with --allow train.precision"
    raise NumericsError(Problem("SKD-T11", f"step {step}", found, remedy))

"""What forwards cost, for a run that measures it: once, at its beginning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from skd.config import MeasuredCosts, RunConfig
from skd.models import Pair
from skd.sampling.calibrate import measured_costs
from skd.sampling.pace import Costs
from skd.train.build import build_execution
from skd.types import Prompts

__all__ = ["with_costs"]


def with_costs(
    config: RunConfig, pair: Pair, prompts: Prompts, accelerator: Accelerator, batch_size: int | None = None
) -> RunConfig:
    """Let blocks go by measured costs where the config says so; returns it with them.

    They are measured where the config does not hold them, by the main process for all, so that a run which is resumed,
    by however many processes, chooses its blocks as before. ``batch_size``: prompts at once, of all processes.
    """
    if not isinstance(config.sampling.costs, MeasuredCosts) or "interleaved" not in config.writers:
        return config
    pairs = {f"teacher.by.{name}": one for name, one in pair.routes.items()} or {"teacher": pair}
    # A server says itself which block suits it.
    pairs = {key: one for key, one in pairs.items() if one.required_engine.block is None}
    if pairs and not config.sampling.costs.microseconds:
        processes = accelerator.num_processes
        prompts_at_once = -(-(batch_size or config.train.batch_size) // processes)
        config = config.with_costs(_measured(config, pairs, prompts, prompts_at_once, accelerator))
    assert isinstance(config.sampling.costs, MeasuredCosts)
    known = config.sampling.costs.microseconds
    for key, one in pairs.items():
        if key in known:
            one.costs = Costs(known["student"], known[key])
    return config


def _measured(
    config: RunConfig, pairs: Mapping[str, Pair], prompts: Prompts, prompts_at_once: int, accelerator: Accelerator
) -> dict[str, tuple[float, float]]:
    """Microseconds by model. The student's are those beside the first teacher."""
    settings, execution = config.sampling, build_execution(config)
    rows = min(settings.slots, prompts_at_once * settings.responses_per_prompt)
    found: dict[str, tuple[float, float]] = {}
    for key, pair in pairs.items():
        costs = measured_costs(pair, prompts, rows, settings.max_new_tokens, execution)
        found = {"student": costs.student, **found, key: costs.teacher}
    numbers = torch.tensor(list(found.values()), dtype=torch.float64, device=accelerator.device)
    agreed = broadcast(numbers).tolist()
    # A fifth digit says nothing.
    rounded = [[float(f"{1e6 * seconds:.4g}") for seconds in line] for line in agreed]
    return {key: (forward, token) for key, (forward, token) in zip(found, rounded, strict=True)}

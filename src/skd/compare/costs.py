"""What a run cost, from its logs: response tokens, seconds of its steps, and the teacher's arithmetic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from skd.config import RoutedTeacher, RunConfig
from skd.model_files import model_files
from skd.train.build import build_objective

__all__ = ["Costs", "Point", "costs_of", "curve_of", "teacher_parameters", "uses_teacher"]


@dataclass(frozen=True)
class Costs:
    """Sums over all optimiser steps."""

    steps: int
    tokens: int
    """Response tokens trained on."""
    seconds: float
    """Wall time of the steps: responses, evidence and update; no loading, validation or export."""
    cpu_seconds: float
    """Time of this process on all its cores in them: what to compare where other work shares the machine."""
    teacher_flops: float | None
    """2 x parameters x tokens that the teacher read; None when its size is not known."""


@dataclass(frozen=True)
class Point:
    """A score while training, with what had been spent by then."""

    step: int
    tokens: int
    seconds: float
    cpu_seconds: float
    score: float


def uses_teacher(config: RunConfig) -> bool:
    """Whether the teacher looks at the responses, or writes in them."""
    writes = {"teacher", "interleaved"} & set(config.writers)
    return config.teacher is not None and (bool(writes) or build_objective(config.objective).needs_teacher)


def teacher_parameters(config: RunConfig) -> int | None:
    """Parameters of the teacher from the headers of its files; None without one or with several, or where they are not
    here."""
    if config.teacher is None or isinstance(config.teacher, RoutedTeacher):
        return None
    # A teacher made of the student is as large as that.
    model = config.models.get("teacher", config.student)
    files, _ = model_files("teacher", model.path, model.revision)
    if files is None or files.tensors is None:
        return None
    return sum(prod(tensor.shape) for tensor in files.tensors.values())


def costs_of(run_dir: Path, config: RunConfig, prompt_tokens: Mapping[int, int]) -> Costs:
    """The costs of a finished run. ``prompt_tokens``: length of the prompt of each training row, by its id.

    The teacher reads every prompt and response once, whether it judges while they are written, or scores them
    afterwards; and besides the drafts that were thrown away. Attention is not counted.
    """
    steps = [row for row in _rows(run_dir / "metrics.jsonl") if "validation" not in row]
    tokens = sum(int(row["tokens"]) for row in steps)
    size = teacher_parameters(config)
    flops: float | None = 0.0
    if uses_teacher(config):
        prompts = sum(prompt_tokens[i] for row in _rows(run_dir / "trained.jsonl") for i in row["sample_ids"])
        prompts *= config.sampling.responses_per_prompt if config.writers != {"data_set"} else 1
        read = prompts + tokens + sum(int(row["wasted"]) for row in steps)
        flops = None if size is None else 2.0 * size * read
    seconds, cpu_seconds = (sum(float(row[key]) for row in steps) for key in ("seconds", "seconds_cpu"))
    return Costs(len(steps), tokens, seconds, cpu_seconds, flops)


def curve_of(run_dir: Path) -> list[Point]:
    """The scores measured at validations."""
    tokens, seconds, cpu_seconds = 0, 0.0, 0.0
    points: list[Point] = []
    for row in _rows(run_dir / "metrics.jsonl"):
        if "validation" not in row:
            tokens, seconds = tokens + int(row["tokens"]), seconds + float(row["seconds"])
            cpu_seconds += float(row["seconds_cpu"])
        elif row["validation"].get("score") is not None:
            score = float(row["validation"]["score"])
            points.append(Point(int(row["step"]), tokens, seconds, cpu_seconds, score))
    return points


def _rows(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

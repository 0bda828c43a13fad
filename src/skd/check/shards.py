"""What one of several processes holds of a run that trains in shards (``train.sharding``; docs/scale.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel

from skd.check.memory import BYTES, TEACHER, Estimate
from skd.config import AverageTeacher, RunConfig, TeacherModel, teachers_of
from skd.models import layers_of

__all__ = ["in_shards", "processes"]


def processes() -> int:
    """How many a launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class _Gathered:
    """Weights of a model that are whole at once where it runs a layer at a time."""

    head: int
    frame: int
    """Embeddings that are not the head, and the last norm."""
    layer: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Gathered:
        """Of a model on any device, meta too."""
        head, layers = _count(model.get_output_embeddings()), [_count(layer) for layer in layers_of(model)]
        return cls(head, _count(model) - sum(layers) - head, max(layers, default=0))


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def in_shards(found: Estimate, config: RunConfig, built: Mapping[str, PreTrainedModel], count: int) -> Estimate:
    """The share of one of ``count`` processes in what one would hold alone, with these models."""
    settings, fixed, student = config.train, dict(found.fixed), _Gathered.of(built["student"])
    teachers = [
        (_Gathered.of(built[key]), BYTES[one.dtype])
        for key, one in teachers_of(config.teacher).items()
        if isinstance(one, TeacherModel)
    ]
    visited = fixed["student weights"] + fixed.pop("sampling copy of the student")
    if not isinstance(config.teacher, AverageTeacher):
        visited += fixed.get(TEACHER, 0)
        _share(fixed, TEACHER, count)
        fixed["teachers' heads"] = sum(width * model.head for model, width in teachers)
    if settings.gather == "layer":
        runs = [(student, 4), *teachers]
        heads = student.head * sum({4, BYTES[config.student.dtype]})
        visited = heads + max(width * (model.frame + model.layer) for model, width in runs)
    _share(fixed, "optimiser", count)
    learned = 0
    if settings.sharding != "zero2":
        _share(fixed, "student weights", count)
        learned = 4 * (student.head + student.frame + student.layer)
    phases = []
    for phase in map(dict, found.phases):
        if "gradients" in phase:
            _share(phase, "gradients", count)
            phase["gathered to learn"] = learned
        if "gradients" not in phase or config.sampling.evidence == "recompute":
            phase["gathered models"] = visited
        phases.append(phase)
    return replace(found, fixed=fixed, phases=phases, processes=count)


def _share(parts: dict[str, int], name: str, count: int) -> None:
    if name in parts:
        parts[name] = -(-parts[name] // count)

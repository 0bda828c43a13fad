"""Student and teacher, each by itself and then together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skd.check.models import Roles, Words, check_files, check_model, check_same, check_words
from skd.check.report import Part, Say
from skd.model_files import ModelFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["PairFound", "check_pair"]


@dataclass(frozen=True)
class PairFound:
    """What could be made of the models."""

    built: Mapping[str, PreTrainedModel]
    """Architectures without weights, by role."""
    words: Words | None
    files: Mapping[str, ModelFiles]
    """Of the models in ``built``."""


def check_pair(models: Roles, finish: Say) -> PairFound:
    """All files first: what is wrong with them is said before torch is loaded."""
    named = {name: (Part(name), model) for name, model in models.items()}
    files: dict[str, ModelFiles | None] = {}
    for name, (part, model) in named.items():
        files[name] = check_files(part, name, model)
        if part.errors:
            finish(part)
    built: dict[str, PreTrainedModel] = {}
    for name, (part, model) in named.items():
        found = files[name]
        if found is None:
            continue
        if name != "student":
            check_same(part, model.path, found, files.get("student"))
        architecture = check_model(part, name, model, found)
        if architecture is not None:
            built[name] = architecture
        finish(part)
    if not built:
        return PairFound({}, None, {})
    part = Part("tokenizer")
    words = check_words(part, models, built)
    if words is not None:
        _rehearse(part, built["student"], words)
    finish(part)
    return PairFound(built, words, {name: found for name in built if (found := files[name]) is not None})


def _rehearse(part: Part, student: PreTrainedModel, words: Words) -> None:
    from skd.models.export import rehearse_export

    with part.noting():
        rehearse_export(student.config, student.generation_config, words.tokenizer)

"""Models and tokenizers, from their small files and the headers of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skd.check.hub import with_headers
from skd.check.report import Part
from skd.config import (
    AdapterOffTeacher,
    ModelConfig,
    RunConfig,
    StudentModel,
    StudentTeacher,
    TeacherConfig,
    teachers_of,
)
from skd.errors import Problem
from skd.model_files import ModelFiles, model_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Roles", "Words", "check_files", "check_model", "check_own_teacher", "check_same", "check_words", "roles"]

Roles = Mapping[str, ModelConfig]
"""The models of a run by their part."""


@dataclass(frozen=True)
class Words:
    """What the pair shares: a tokenizer, the number of ids, and the ids that end a response."""

    tokenizer: PreTrainedTokenizerBase
    vocab_size: int
    stop_ids: frozenset[int]

    @property
    def end_id(self) -> int:
        """As ``Pair.end_id``."""
        from skd.models.vocabulary import end_id

        return end_id(self.tokenizer, self.stop_ids)


def roles(student: ModelConfig | None, teacher: TeacherConfig | None) -> Roles:
    """Those that are opened, the student first; a teacher made of the student is none of them."""
    named = {"student": student, **teachers_of(teacher)}
    return {name: model for name, model in named.items() if isinstance(model, ModelConfig)}


def check_files(part: Part, name: str, model: ModelConfig) -> ModelFiles | None:
    """The files of a model; None with what is wrong noted. Needs no torch."""
    files, errors = model_files(name, model.path, model.revision)
    part.errors += errors
    if files is None:
        return None
    if files.tensors is None:
        files = with_headers(part, name, model, files)
    if files.tensors is not None:
        part.facts[:0] = [f"stored as {', '.join(sorted({tensor.dtype for tensor in files.tensors.values()}))}"]
    return None if part.errors else files


def check_model(part: Part, name: str, model: ModelConfig, files: ModelFiles) -> PreTrainedModel | None:
    """The architecture without weights; None with what is wrong noted."""
    from skd.models.adapters import Adapters
    from skd.models.arguments import require_attention
    from skd.models.blueprint import blueprint
    from skd.models.quantized import require_quantization
    from skd.sampling.cache import context_length

    with part.noting():
        require_attention(model.attention)
        require_quantization(name, model.quantization)
    with part.noting():
        built = blueprint(name, model.path, files)
        count = sum(parameter.numel() for parameter in built.parameters())
        if isinstance(model, StudentModel) and (adapters := Adapters.of(model.lora, seed=0)) is not None:
            adapters.add_to(built)
            part.facts.append(f"{sum(p.numel() for p in built.parameters() if p.requires_grad):,} of adapters")
        part.facts[:0] = [type(built).__name__, f"{count:,} parameters", f"context {context_length(built):,}"]
        return built
    return None


def check_words(part: Part, models: Roles, built: Mapping[str, PreTrainedModel]) -> Words | None:
    """Tokenizers of the models whose architecture could be built, their shared ids and the stop ids."""
    from skd.models.load import load_tokenizer
    from skd.models.vocabulary import shared_vocab_size, stop_ids

    tokenizers = {}
    for name in built:
        with part.noting():
            tokenizers[name] = load_tokenizer(name, models[name].path, models[name].revision)
    if "student" not in tokenizers:
        return None
    tokenizer = tokenizers["student"]
    with part.noting():
        shared = shared_vocab_size(tokenizers, {name: built[name] for name in tokenizers})
        ends = stop_ids(tokenizer, list(built.values()), shared)
        shown = ", ".join(f"{i} {tokenizer.convert_ids_to_tokens(i)!r}" for i in sorted(ends))
        part.facts += [f"{shared:,} shared ids", f"stop ids {shown}"]
        return Words(tokenizer, shared, ends)
    return None


def check_own_teacher(part: Part, config: RunConfig) -> None:
    """The student's own weights behind the student's own prompt teach nothing (SKD-M19)."""
    own = isinstance(config.teacher, StudentTeacher | AdapterOffTeacher)
    if own and config.data.teacher_prompt is None:
        when = "at every step" if isinstance(config.teacher, StudentTeacher) else "before the first step"
        found = f"is the student itself and reads the same prompts, so the two agree {when}"
        remedy = "write data.teacher_prompt, or teacher: {kind: average}, unless this is meant"
        part.warnings.append(Problem("SKD-M19", "teacher", found, remedy))


def check_same(part: Part, path: str, teacher: ModelFiles, student: ModelFiles | None) -> None:
    """One model as both teacher and student is a warning (SKD-M19): there is nothing to learn but noise."""
    if student is not None and teacher.directory.resolve() == student.directory.resolve():
        found = f"is the student, too ({path}), so the two agree before the first step"
        part.warnings.append(Problem("SKD-M19", part.name, found, "name another teacher, unless this is meant"))

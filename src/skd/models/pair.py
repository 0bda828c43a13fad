"""Teacher and student, aligned: what every other room works with."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skd.config import TeacherModel
from skd.errors import ConfigError, ModelError, Problem
from skd.models.adapters import Adapters
from skd.models.arguments import device_of, dtype_of, require_attention
from skd.models.head import check_head, head_of
from skd.models.load import load_model, load_tokenizer, provenance
from skd.models.local_teacher import LocalTeacher
from skd.models.own_teacher import OwnTeacher
from skd.models.quantized import is_narrow, keep_packing
from skd.models.vocabulary import end_id, shared_vocab_size, stop_ids
from skd.sampling.cache import AttentionForm, context_length, settle_attention
from skd.sampling.judge import Connectable, TeacherEngine
from skd.sampling.pace import Costs
from skd.text import shortened
from skd.types import Head, Prompts

__all__ = ["Pair", "load_pair"]


@dataclass(eq=False)
class Pair:
    """A frozen teacher and a student that share one vocabulary. ``teacher`` is None where none is needed (SFT)."""

    teacher: PreTrainedModel | None
    student: PreTrainedModel
    """float32 master weights; the optimiser's model."""
    sampling_student: PreTrainedModel
    """The student that writes: the same object in float32, else a half-precision copy kept current by ``sync``."""
    tokenizer: PreTrainedTokenizerBase
    vocab_size: int
    """V: the ids both models share."""
    stop_ids: frozenset[int]
    attention: str
    """Attention implementation of the training forward; sampling uses SDPA, or eager where scores are capped."""
    teacher_form: AttentionForm | None
    student_form: AttentionForm
    provenance: dict[str, Any]
    own_teacher: OwnTeacher | None = None
    """How the teacher is made of the student; None where it is a model of its own."""
    server: TeacherEngine | None = None
    """A teacher that is not in this process; ``teacher`` is then None."""
    costs: Costs | None = None
    """What the sampler's forwards cost, by which it chooses blocks; None goes by the models' sizes."""
    routes: Mapping[str, Pair] = field(default_factory=dict)
    """The same student with each of several teachers, by name; ``teacher`` is then None, and ``of`` gives a pair."""

    def of(self, route: str | None) -> Pair:
        """The pair with the teacher of this name; itself where there are not several."""
        return self.routes[route] if route is not None and self.routes else self

    @property
    def engines(self) -> Sequence[TeacherEngine]:
        """All that judge: none, one, or several."""
        engines = [pair.engine for pair in self.routes.values() or [self]]
        return [engine for engine in engines if engine is not None]

    @property
    def engine(self) -> TeacherEngine | None:
        """What judges drafts and scores responses: the server, or the teacher in this process; None without one."""
        if self.server is not None or self.teacher is None or self.teacher_form is None:
            return self.server
        return LocalTeacher(self.teacher, self.teacher_form, self.vocab_size, self.context, self.frozen)

    @property
    def frozen(self) -> bool:
        """Whether the weights of a teacher in this process never change."""
        return self.own_teacher is None or self.own_teacher.frozen

    @property
    def required_engine(self) -> TeacherEngine:
        """``engine``; raises ModelError when the pair has no teacher."""
        engine = self.engine
        if engine is None:
            raise _no_teacher("the pair has none" if not self.routes else "each prompt has another: see Pair.of")
        return engine

    @property
    def device(self) -> torch.device:
        """The device of both models."""
        device: torch.device = self.student.device
        return device

    @property
    def context(self) -> int:
        """Positions that all models were built for."""
        if self.routes:
            return min(pair.context for pair in self.routes.values())
        models = [self.student] if self.teacher is None else [self.student, self.teacher]
        lengths = [context_length(model) for model in models]
        return min(lengths if self.server is None else [*lengths, self.server.context])

    def teacher_head(self) -> Head:
        """The teacher's head, cut to V. Raises ModelError when the pair has no teacher."""
        return head_of(self.required_teacher, self.vocab_size)

    def student_head(self) -> Head:
        """The student's head, cut to V: views of its current master weights."""
        return head_of(self.student, self.vocab_size)

    @property
    def required_teacher(self) -> PreTrainedModel:
        """The teacher in this process; raises ModelError when the pair has none."""
        if self.teacher is None:
            raise _no_teacher("the pair has none" if self.server is None else "this one is on a server")
        return self.teacher

    def updated(self) -> None:
        """Bring what follows the student up to date. Call it after every update of its weights."""
        if self.own_teacher is not None:
            self.own_teacher.follow(self.required_teacher, self.student)
        self.sync()

    @torch.no_grad()
    def sync(self) -> None:
        """Copy the student's master weights into its sampling copy."""
        if self.sampling_student is self.student:
            return
        copies = dict(self.sampling_student.named_parameters())
        for name, master in self.student.named_parameters():
            if master.requires_grad:
                copies[name].copy_(master)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The student in train mode with the training attention; back to eval and sampling attention afterwards."""
        sampling_attention = self.student.config._attn_implementation
        switch = self.attention not in ("sdpa", sampling_attention)
        if switch:
            self.student.set_attn_implementation(self.attention)
        self.student.train()
        try:
            yield
        finally:
            self.student.eval()
            if switch:
                self.student.set_attn_implementation(sampling_attention)

    def encode(self, texts: Sequence[str]) -> Prompts:
        """Prompts of texts, each as one user turn where the tokenizer has a chat template.

        Raises ConfigError for one text instead of a list, DataError for a text without tokens or beyond the context.
        """
        from skd.data.chat import encode_prompts
        from skd.data.rows import Row

        if isinstance(texts, str):
            raise ConfigError(Problem("SKD-C07", "prompts", f"is the text {shortened(texts, 40)!r}", "write [TEXT]"))
        rows = [Row(prompt=text, response=None) for text in texts]
        return encode_prompts(
            rows,
            self.tokenizer,
            chat="auto",
            system=None,
            max_prompt_tokens=self.context,
            on_long_prompt="error",
            stop_id=self.end_id,
        )

    @property
    def end_id(self) -> int:
        """The one stop id that is appended to references: the tokenizer's end token, else the lowest stop id."""
        return end_id(self.tokenizer, self.stop_ids)


def load_pair(
    teacher: str | Path | OwnTeacher | Connectable | Mapping[str, str | Path | TeacherModel | Connectable] | None,
    student: str | Path,
    *,
    teacher_revision: str | None = None,
    student_revision: str | None = None,
    teacher_dtype: str = "float32",
    sample_dtype: str = "float32",
    attention: str = "sdpa",
    adapters: Adapters | None = None,
    student_quantization: str | None = None,
    teacher_quantization: str | None = None,
    device: str | torch.device = "auto",
) -> Pair:
    """Load two causal language models (local directories, Hub ids, or ``builtin:TASK/ROLE``) as a pair.

    ``teacher`` may also be ``CurrentStudent()`` or ``MovingAverage(decay)``: it is then made of the student; or
    ``VllmServer(url)``: it then stays where it is; or several by name, one of which each prompt has
    (``Prompts.routes``): the ``teacher_`` arguments hold for those that are given by path.

    Vocabularies are compared token by token and padded heads cut; stop ids of both are united; the teacher is frozen;
    the student keeps float32 master weights and samples in ``sample_dtype``. That each head and the cursor cache
    reproduce the model's own logits is checked here, on a probe.

    teacher_dtype, sample_dtype: "float32" or "bfloat16". attention: "sdpa", "eager" or "flash_attention_2", of the
    training forward. adapters: added to the student and trained in place of its weights. teacher_quantization,
    student_quantization: "int8" or "nf4" for fewer bits (``skd.models.quantized``); such a student needs adapters.
    device: "auto", "cpu", "cuda" or "cuda:N".

    Raises ConfigError for an argument outside its choices, ModelError or RemoteError for a model or tokenizer that
    cannot be used, RemoteError for a server that does not answer as it should.
    """
    where = device_of(device)
    teacher_type, sample_type = dtype_of("teacher_dtype", teacher_dtype), dtype_of("sample_dtype", sample_dtype)
    require_attention(attention)
    if student_quantization is not None and adapters is None:
        found = f"is {student_quantization!r}, and quantised weights cannot be trained"
        raise ConfigError(Problem("SKD-C10", "student_quantization", found, "give adapters, or leave it out"))
    files = _Files(student, student_revision, torch.float32, student_quantization)
    alone = _student_alone(files, sample_type, attention, adapters, where)

    def taught(key: str, given: str | Path | TeacherModel | OwnTeacher | Connectable) -> Pair:
        if isinstance(given, str | Path):
            return _with_model(alone, key, _Files(given, teacher_revision, teacher_type, teacher_quantization))
        if isinstance(given, TeacherModel):
            dtype = dtype_of(f"{key}.dtype", given.dtype)
            return _with_model(alone, key, _Files(given.path, given.revision, dtype, given.quantization))
        return _with_server(alone, key, given) if isinstance(given, Connectable) else _with_itself(alone, key, given)

    if not isinstance(teacher, Mapping):
        return _ending(alone, alone) if teacher is None else taught("teacher", teacher)
    routes = {name: taught(f"teacher.by.{name}", one) for name, one in teacher.items()}
    return replace(_ending(alone, *routes.values()), routes=routes)


@dataclass(frozen=True)
class _Files:
    """A model to be opened, and how."""

    path: str | Path
    revision: str | None
    dtype: torch.dtype
    quantization: str | None

    def opened(self, key: str, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
        """The model, its tokenizer and what identifies it. ``key`` is its name in messages."""
        model = load_model(key, self.path, self.revision, self.dtype, "sdpa", device, self.quantization)
        tokenizer = load_tokenizer(key, self.path, _commit(model, self.revision))
        narrow = {} if self.quantization is None else {"quantization": self.quantization}
        return model, tokenizer, provenance(self.path, model) | narrow


def _student_alone(
    files: _Files, sample_type: torch.dtype, attention: str, adapters: Adapters | None, device: torch.device
) -> Pair:
    """A pair without a teacher, and as yet without stop ids."""
    student, tokenizer, origin = files.opened("student", device)
    keep_packing(student)
    if adapters is not None:
        adapters.add_to(student)
        origin |= {"adapters": str(adapters)}
    vocab_size = shared_vocab_size({"student": tokenizer}, {"student": student})
    check_head(student, "student", vocab_size)
    return Pair(
        teacher=None,
        student=student,
        sampling_student=_sampling_copy(student, sample_type),
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        stop_ids=frozenset(),
        attention=attention,
        teacher_form=None,
        student_form=_require_form("student", student),
        provenance={"student": origin},
    )


def _ending(pair: Pair, *pairs: Pair) -> Pair:
    """The pair with the stop ids and the provenance of all."""
    models = [pair.student, *(each.teacher for each in pairs if each.teacher is not None and each.own_teacher is None)]
    told = {key: known for each in pairs for key, known in each.provenance.items()}
    return replace(pair, stop_ids=stop_ids(pair.tokenizer, models, pair.vocab_size), provenance=told)


def _with_model(pair: Pair, key: str, files: _Files) -> Pair:
    """The student of a pair with a teacher, which messages and the provenance call ``key``."""
    model, tokenizer, origin = files.opened(key, pair.device)
    model.requires_grad_(False)
    vocab_size = shared_vocab_size({"student": pair.tokenizer, key: tokenizer}, {"student": pair.student, key: model})
    check_head(model, key, vocab_size)
    told = {**pair.provenance, key: origin}
    pair = replace(pair, teacher=model, teacher_form=_require_form(key, model), provenance=told)
    return _ending(pair, pair)


def _with_server(pair: Pair, key: str, server: Connectable) -> Pair:
    engine = server.connect(pair.tokenizer, pair.vocab_size)
    pair = replace(pair, server=engine, provenance={**pair.provenance, key: dict(engine.provenance)})
    return _ending(pair, pair)


def _with_itself(pair: Pair, key: str, teacher: OwnTeacher) -> Pair:
    model, told = teacher.made_from(pair.student), pair.provenance["student"] | {"made": teacher.title}
    form, told = _require_form(key, model), {**pair.provenance, key: told}
    pair = replace(pair, teacher=model, teacher_form=form, own_teacher=teacher, provenance=told)
    return _ending(pair, pair)


def _no_teacher(found: str) -> ModelError:
    return ModelError(Problem("SKD-M20", "teacher", f"this needs a teacher and {found}", "give one to load_pair"))


def _commit(model: PreTrainedModel, revision: str | None) -> str | None:
    """The commit that the weights came from, so that a moving branch cannot hand out another tokenizer."""
    return getattr(model.config, "_commit_hash", None) or revision


def _sampling_copy(student: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    if dtype == torch.float32:
        return student
    narrow = {id(layer.weight): layer.weight for layer in student.modules() if is_narrow(layer)}
    copied = copy.deepcopy(student, dict(narrow)).requires_grad_(False)
    for parameter in copied.parameters():
        # Only parameters: rotary frequencies are buffers, and rounded ones misplace the tokens of a long prompt.
        if id(parameter) not in narrow:
            parameter.data = parameter.data.to(dtype)
    return copied


def _require_form(name: str, model: PreTrainedModel) -> AttentionForm:
    form = settle_attention(model)
    if form is None:
        raise ModelError(
            Problem(
                "SKD-M20",
                f"{name} {type(model).__name__}",
                "its forward with a rewound key-value cache does not reproduce its plain forward",
                "use a supported family, or report the family's name",
            )
        )
    return form

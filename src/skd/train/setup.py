"""From a checked configuration to a run that is ready to step: cheap things first, weights last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from transformers import PreTrainedModel

from skd.config import ObjectiveConfig, RunConfig
from skd.data.chat import encode_prompts
from skd.data.rows import Row
from skd.data.sources import load_rows
from skd.models import Pair, load_pair
from skd.objectives import JSD, NLL, ForwardKL, Objective, ReverseKL, TokenLoss
from skd.policies import build_policy
from skd.sampling.checks import require_prompts
from skd.train.batch import StudentLoss
from skd.train.run import Run, adamw
from skd.types import Prompts

__all__ = ["PromptSource", "build_objective", "prepare"]

PromptSource = Prompts | Sequence[str] | Sequence[Row]
"""Prompts as token ids, or as text, with references where the rows have some."""


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective of a configuration."""
    losses: dict[str, TokenLoss] = {
        "nll": NLL(),
        "forward_kl": ForwardKL(),
        "reverse_kl": ReverseKL(),
        "jsd": JSD(config.beta),
    }
    return Objective(losses[config.kind], temperature=config.temperature, reduction=config.reduction)


def prepare(
    config: RunConfig,
    accelerator: Accelerator,
    *,
    pair: Pair | None = None,
    prompts: PromptSource | None = None,
    validation: PromptSource | None = None,
) -> Run:
    """Load what the configuration names and was not given, and put the run together.

    Raises DataError, ModelError or RemoteError for what cannot be used; rows are read before weights.
    """
    source = config.data.validation
    train_rows = load_rows(config.data.train) if prompts is None else prompts
    validation_rows = load_rows(source) if validation is None and source is not None else validation
    pair = pair or _load(config, accelerator)
    train_set = _encoded(config, pair, train_rows)
    held_out = None
    if validation_rows is not None:
        held_out = _encoded(config, pair, validation_rows)
        held_out = held_out.select(range(min(len(held_out), config.train.validation_prompts)))
    if config.train.gradient_checkpointing:
        _checkpoint_activations(pair.student)
    for part in (train_set, held_out):
        _require_fitting(config, pair, part)
    objective = build_objective(config.resolved_objective)
    loss = StudentLoss(pair, objective, config.train.precision)
    optimizer = adamw(pair.student, config)
    return Run(
        config=config,
        run_dir=Path(config.output),
        pair=pair,
        policy=build_policy(config),
        objective=objective,
        prompts=train_set,
        validation=held_out,
        total_steps=config.train.num_steps(len(train_set)),
        accelerator=accelerator,
        module=accelerator.prepare_model(loss),
        loss=loss,
        optimizer=optimizer,
    )


def _require_fitting(config: RunConfig, pair: Pair, prompts: Prompts | None) -> None:
    """Every prompt fits the context with its longest response: said now, not at the step that would meet it."""
    if prompts is None:
        return
    lengths = [config.sampling.max_new_tokens] * len(prompts)
    if config.resolved_policy.kind == "data_set" and prompts.references is not None:
        lengths = [len(ids) for ids in prompts.references]
    require_prompts(prompts, lengths, pair.context, pair.vocab_size)


def _checkpoint_activations(student: PreTrainedModel) -> None:
    # transformers renamed this in a 5.x release and warns at the old name.
    enable = getattr(student, "activation_checkpointing_enable", None) or student.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _load(config: RunConfig, accelerator: Accelerator) -> Pair:
    teacher, student = config.teacher, config.student
    return load_pair(
        None if teacher is None else teacher.path,
        student.path,
        teacher_revision=None if teacher is None else teacher.revision,
        student_revision=student.revision,
        teacher_dtype="float32" if teacher is None else teacher.dtype,
        sample_dtype=student.dtype,
        attention=student.attention,
        device=accelerator.device,
    )


def _encoded(config: RunConfig, pair: Pair, source: PromptSource) -> Prompts:
    """The whole set as token ids. Texts and rows go through the chat template as the configuration says."""
    if isinstance(source, Prompts):
        return source
    rows = [entry if isinstance(entry, Row) else Row(prompt=entry, response=None) for entry in source]
    return encode_prompts(
        rows,
        pair.tokenizer,
        chat=config.data.chat,
        system=config.data.system,
        max_prompt_tokens=config.data.max_prompt_tokens,
        on_long_prompt=config.data.on_long_prompt,
        stop_id=pair.end_id,
    )

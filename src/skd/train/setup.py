"""From a checked configuration to a run that is ready to step: cheap things first, weights last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator
from torch.distributed import is_initialized
from transformers import PreTrainedModel

from skd.check.prompts import longest_responses
from skd.config import (
    AdapterOffTeacher,
    AverageTeacher,
    RoutedTeacher,
    RunConfig,
    ServerTeacher,
    StudentTeacher,
    TeacherConfig,
    TeacherModel,
    TrainConfig,
)
from skd.data.chat import encode_set
from skd.data.rows import Row
from skd.data.sources import tell_leak
from skd.engines import VllmServer, server_of, writers_of
from skd.errors import ConfigError, DataError, Problem
from skd.models import AdapterOff, Adapters, CurrentStudent, MovingAverage, OwnTeacher, Pair, load_pair
from skd.responses import StoredResponses
from skd.sampling.checks import require_prompts
from skd.train.batch import StudentLoss
from skd.train.build import build_objective, build_policy
from skd.train.costs import with_costs
from skd.train.fsdp import Sharded
from skd.train.run import Run
from skd.train.scale import loss_scaler
from skd.train.spread import MakeLoss, Replicated, Spread
from skd.train.stored import open_sets, prompts_of, require_evidence
from skd.train.zero import Zero
from skd.types import Prompts, by_route

__all__ = ["PromptSource", "prepare", "prepare_prompts"]

PromptSource = Prompts | Sequence[str] | Sequence[Row] | StoredResponses
"""Prompts as token ids, as text with references where the rows have some, or stored responses."""


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
    spread_over = _spread(config)
    train_rows, validation_rows = _rows(config, prompts, validation)
    objective = build_objective(config.objective)
    without_teacher = config.teacher is None if pair is None else not pair.engines
    if without_teacher:
        stored = [rows for rows in (train_rows, validation_rows) if isinstance(rows, StoredResponses)]
        require_evidence(objective, stored)
    pair = pair or _load(config, accelerator)
    if isinstance(train_rows, StoredResponses):
        pair.provenance["responses"] = train_rows.provenance
    train_set = _encoded(config, pair, train_rows)
    held_out = None
    if validation_rows is not None:
        held_out = _encoded(config, pair, validation_rows)
        held_out = held_out.select(range(min(len(held_out), config.train.validation_prompts)))
    if config.train.gradient_checkpointing:
        _checkpoint_activations(pair.student)
    for part in (train_set, held_out):
        _require_fitting(config, pair, part)

    def loss_of(learner: Pair) -> StudentLoss:
        return StudentLoss(learner, objective, config.train.precision)

    # While the models are whole.
    config = with_costs(config, pair, train_set, accelerator)
    spread = spread_over(pair, loss_of, config.train, accelerator)
    # At another temperature than the rollout's the two log-probs could not be compared.
    student_logp = objective.token_loss.needs_rollout_logp and objective.temperature == 1.0
    # Stored evidence cannot be computed again.
    evidence = objective.needs_teacher and (config.sampling.evidence == "keep" or without_teacher)
    writers = writers_of(config)
    return Run(
        config=config,
        run_dir=Path(config.output),
        pair=pair,
        policy=build_policy(config, evidence=evidence, student_logp=student_logp, writers=writers),
        writers=writers,
        objective=objective,
        prompts=train_set,
        validation=held_out,
        total_steps=config.train.num_steps(len(train_set)),
        accelerator=accelerator,
        spread=spread,
        loss=loss_of(pair),
        scaler=loss_scaler(config.train.precision, accelerator.device),
    )


def _spread(config: RunConfig) -> Callable[[Pair, MakeLoss, TrainConfig, Accelerator], Spread]:
    sharding = config.train.sharding
    if sharding == "none":
        return Replicated.over
    if not is_initialized():
        found, remedy = f"is {sharding}, and there is one process", "start several with torchrun, or write none"
        raise ConfigError(Problem("SKD-P09", "train.sharding", found, remedy))
    if sharding == "fsdp2":
        return Sharded.over
    if find_spec("deepspeed") is None:
        found, remedy = f"is {sharding}, and DeepSpeed is not installed", "pip install 'skd[deepspeed]', or write fsdp2"
        raise ConfigError(Problem("SKD-P09", "train.sharding", found, remedy))
    return Zero.over


def prepare_prompts(config: RunConfig, accelerator: Accelerator, pair: Pair | None = None) -> tuple[Pair, Prompts]:
    """The pair and the training set of a configuration, as ``prepare`` would load them. Raises as it does."""
    (rows,) = open_sets(config.data, config.data.train, teacher=_routed(config))
    pair = pair or _load(config, accelerator)
    prompts = _encoded(config, pair, rows)
    _require_fitting(config, pair, prompts)
    return pair, prompts


def _rows(
    config: RunConfig, prompts: PromptSource | None, validation: PromptSource | None
) -> tuple[PromptSource, PromptSource | None]:
    """Training and validation rows: those given, else those that the configuration names."""
    data = config.data
    wanted = data.train if prompts is None else (), data.validation or () if validation is None else ()
    train, held_out = open_sets(data, *wanted, teacher=_routed(config))
    if isinstance(train, list) and isinstance(held_out, list):
        tell_leak(train, held_out, data.on_leak)
    return train if prompts is None else prompts, held_out or validation


def _routed(config: RunConfig) -> RoutedTeacher | None:
    return config.teacher if isinstance(config.teacher, RoutedTeacher) else None


def _require_fitting(config: RunConfig, pair: Pair, prompts: Prompts | None) -> None:
    """Every prompt has a teacher, and fits the context with its longest response: said now, not at the step that would
    meet it."""
    if prompts is None:
        return
    _require_routes(pair, prompts)
    for route, index in by_route(prompts.routes, len(prompts)):
        read = prompts if route is None else prompts.select(index)
        require_prompts(read, longest_responses(config, read), pair.of(route).context, pair.vocab_size)


def _require_routes(pair: Pair, prompts: Prompts) -> None:
    """Raises DataError (SKD-D04) for prompts that name none of several teachers."""
    if not pair.routes:
        return
    routes = prompts.routes or [""] * len(prompts)
    lost = [i for i, route in enumerate(routes) if route not in pair.routes]
    if lost:
        found = f"{len(lost)} prompts name no teacher of the pair, first {prompts.sample_ids[lost[0]]}: "
        found += f"{routes[lost[0]]!r}, expected one of {', '.join(map(repr, pair.routes))}"
        raise DataError(Problem("SKD-D04", "prompts", found, "give each its teacher in Prompts.routes"))


def _checkpoint_activations(student: PreTrainedModel) -> None:
    # transformers renamed this in a 5.x release and warns at the old name.
    enable = getattr(student, "activation_checkpointing_enable", None) or student.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _load(config: RunConfig, accelerator: Accelerator) -> Pair:
    teacher, student = config.teacher, config.student
    model = teacher if isinstance(teacher, TeacherModel) else None
    return load_pair(
        _other_teacher(teacher) if model is None else model.path,
        student.path,
        teacher_revision=None if model is None else model.revision,
        student_revision=student.revision,
        teacher_dtype="float32" if model is None else model.dtype,
        sample_dtype=student.dtype,
        attention=student.attention,
        student_quantization=student.quantization,
        teacher_quantization=None if model is None else model.quantization,
        adapters=Adapters.of(student.lora, config.train.known_seed),
        # Where no device need hold a model whole, it is cut in the host's memory.
        device="cpu" if config.train.gather == "layer" else accelerator.device,
    )


def _other_teacher(
    teacher: TeacherConfig | None,
) -> OwnTeacher | VllmServer | Mapping[str, TeacherModel | VllmServer] | None:
    match teacher:
        case RoutedTeacher(by=by):
            return {name: server_of(one) if isinstance(one, ServerTeacher) else one for name, one in by.items()}
        case ServerTeacher():
            return server_of(teacher)
        case StudentTeacher():
            return CurrentStudent()
        case AverageTeacher(decay=decay):
            return MovingAverage(decay)
        case AdapterOffTeacher():
            return AdapterOff()
    return None


def _encoded(config: RunConfig, pair: Pair, source: PromptSource) -> Prompts:
    """The whole set as token ids. Texts and rows go through the chat template as the configuration says."""
    if isinstance(source, StoredResponses):
        return prompts_of(source, pair)
    if isinstance(source, Prompts):
        return source
    rows = [entry if isinstance(entry, Row) else Row(prompt=entry, response=None) for entry in source]
    return encode_set(rows, pair.tokenizer, config.data, pair.end_id)

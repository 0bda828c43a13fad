"""From a config's names to the values that do the work: one table for each kind of value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from skd.config import GateConfig, LossConfig, ObjectiveConfig, PolicyConfig, RunConfig, ScheduleConfig
from skd.config.credentials import quoted
from skd.config.objective import CustomLoss, TargetConfig, WeightsConfig
from skd.config.policy import CustomGate, InterleavedPolicy, MixturePolicy, StagedPolicy
from skd.engines import VllmPolicy, Writers
from skd.errors import ConfigError, Problem, SkdError
from skd.objectives import (
    JSD,
    NLL,
    ByAuthor,
    ForwardKL,
    Objective,
    PerAuthor,
    Plain,
    PolicyGradient,
    ReverseKL,
    SampledReverseKL,
    SkewKL,
    SkewReverseKL,
    Taid,
    Target,
    TeacherTopK,
    TokenLoss,
    TokenWeights,
    TotalVariation,
    Veto,
)
from skd.policies import DataSet, Interleaved, Mixture, Policy, Sampling, Staged, Student, Teacher
from skd.sampling import (
    AcceptAll,
    AcceptNone,
    Compiled,
    Eager,
    Gate,
    Interpolated,
    MinProb,
    PromptCache,
    SwitchOnce,
    TopK,
    TopP,
    Warp,
)
from skd.sampling.packed import KeptCopies
from skd.schedule import Schedule

__all__ = ["build_execution", "build_gate", "build_objective", "build_policy"]

GATES: Mapping[str, Callable[..., Gate]] = {
    "top_k": TopK,
    "top_p": TopP,
    "min_prob": MinProb,
    "interpolated": Interpolated,
    "switch_once": SwitchOnce,
    "accept_all": AcceptAll,
    "accept_none": AcceptNone,
}
LOSSES: Mapping[str, Callable[..., TokenLoss]] = {
    "nll": NLL,
    "forward_kl": ForwardKL,
    "reverse_kl": ReverseKL,
    "jsd": JSD,
    "skew_kl": SkewKL,
    "skew_reverse_kl": SkewReverseKL,
    "total_variation": TotalVariation,
    "policy_gradient": PolicyGradient,
    "sampled_reverse_kl": SampledReverseKL,
}
TARGETS: Mapping[str, Callable[..., Target]] = {"plain": Plain, "veto": Veto, "taid": Taid}
WEIGHTS: Mapping[str, Callable[..., TokenWeights]] = {"by_author": ByAuthor, "teacher_top_k": TeacherTopK}


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective of a config. Raises ConfigError for a custom loss that cannot be made."""
    data, student, teacher = (_loss(loss) for loss in config.losses)
    token_loss = data if data == student == teacher else PerAuthor(data, student, teacher)
    target, weights = _value(TARGETS, config.target), _value(WEIGHTS, config.weights)
    return Objective(token_loss, target, weights, config.temperature, config.reduction)


def build_policy(
    config: RunConfig, *, evidence: bool, student_logp: bool = False, writers: Writers | None = None
) -> Policy:
    """The policy of a config, with its sampling settings; the flags say what its rollouts keep for the loss.

    writers: the engines that write what one model writes alone; None for the sampler in this process.
    """
    settings = config.sampling
    sampling = Sampling(
        student_warp=Warp(settings.student.temperature, settings.student.top_p),
        teacher_warp=Warp(settings.teacher.temperature, settings.teacher.top_p),
        max_new_tokens=settings.max_new_tokens,
        slots=settings.slots,
        responses_per_prompt=settings.responses_per_prompt,
        stop_strings=tuple(settings.stop_strings),
        evidence=evidence,
        student_logp=student_logp,
        kept_prompts=PromptCache(settings.prompt_cache_mb) if settings.prompt_cache_mb else None,
        execution=build_execution(config),
    )
    return _policy(config.policy, sampling, writers)


def build_execution(config: RunConfig) -> Eager:
    """How the sampler's forwards run."""
    if config.sampling.compile:
        return Compiled()
    # Copies would stay where the layers, or the whole models, that they are made of do not.
    packed_mb = 0 if config.train.gather == "layer" else config.sampling.packed_mb
    return Eager(packed_mb, KeptCopies() if config.train.sharding == "none" else None)


def build_gate(config: GateConfig) -> Gate:
    """The gate of a config. Raises ConfigError for a custom gate that cannot be made."""
    gate: Gate = _custom(config, "gate", _GATE) if isinstance(config, CustomGate) else _value(GATES, config)
    return gate


def _policy(config: PolicyConfig, sampling: Sampling, writers: Writers | None) -> Policy:
    match config:
        case InterleavedPolicy():
            return Interleaved(build_gate(config.gate), config.block, sampling)
        case MixturePolicy():
            weights = tuple(_number(part.weight) for part in config.parts)
            return Mixture(tuple(_policy(part.policy, sampling, writers) for part in config.parts), weights)
        case StagedPolicy():
            policies = tuple(_policy(part.policy, sampling, writers) for part in config.parts)
            return Staged(policies, tuple(part.share for part in config.parts))
    if config.kind == "data_set":
        return DataSet(sampling.evidence)
    if writers is not None:
        return VllmPolicy(sampling, writers.student if config.kind == "student" else writers.teacher)
    return Student(sampling) if config.kind == "student" else Teacher(sampling)


def _loss(config: LossConfig) -> TokenLoss:
    loss: TokenLoss = _custom(config, "loss", _LOSS) if isinstance(config, CustomLoss) else _value(LOSSES, config)
    return loss


def _value(
    table: Mapping[str, Callable[..., Any]], config: GateConfig | LossConfig | TargetConfig | WeightsConfig
) -> Any:
    """The value that a section's ``kind`` names, made of its other keys."""
    fields = {name: _number(getattr(config, name)) for name in type(config).model_fields if name != "kind"}
    return table[config.kind](**fields)


def _number(value: Any) -> Any:
    return Schedule(**dict(value)) if isinstance(value, ScheduleConfig) else value


_GATE = ("judge", "drafts", "judges", "needs_student", "state_size")
_LOSS = ("__call__", "needs_teacher", "needs_rollout_logp")


def _custom(config: CustomGate | CustomLoss, what: str, members: Sequence[str]) -> Any:
    """A class of the user's own, called with the config's options."""
    module, _, name = config.path.partition(":")
    try:
        value = getattr(import_module(module), name)(**config.options)
    except SkdError:
        raise
    except Exception as error:  # whatever the user's module does
        reason = quoted(str(error), 200)[1:-1]
        found = f"{config.path} cannot be made: {type(error).__name__}: {reason}"
        remedy = "check the path and its options; the module must be importable, for example from PYTHONPATH"
        raise ConfigError(Problem("SKD-C10", what, found, remedy)) from error
    if missing := [member for member in members if not hasattr(value, member)]:
        found = f"{config.path} makes a {type(value).__name__}, which has no {', '.join(missing)}"
        raise ConfigError(Problem("SKD-C10", what, found, f"add what a {what} must have"))
    return value

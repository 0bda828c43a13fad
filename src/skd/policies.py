"""Policies: who writes the responses that the student learns from.

The data set, the teacher, the student, or both interleaved. Teacher and student alone are the two limits of the
interleaved sampler: the gate that keeps nothing and the gate that keeps everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from skd.errors import ConfigError, DataError, Problem
from skd.sampling import AcceptAll, AcceptNone, Eager, Gate, PromptCache, Purpose, TopK, Warp, draw, interleave, uniform
from skd.sampling.checks import require_prompts
from skd.schedule import Number, ends, value_at
from skd.types import DATA, Evidence, Prompts, Rollout, SamplerStats, by_route, merged

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = [
    "DataSet",
    "Interleaved",
    "Mixture",
    "Policy",
    "RolloutKey",
    "Sampling",
    "Staged",
    "Student",
    "Teacher",
    "rolled_out",
]


@dataclass(frozen=True)
class RolloutKey:
    """What keys the noise of a rollout, besides each prompt's sample id."""

    seed: int
    epochs: Sequence[int]
    """One per prompt: the pass over the data in which it is used."""
    progress: float = 0.0
    """Share of the training done, in [0, 1], for schedules and stages."""
    check: Callable[[], None] | None = None
    """Called now and then while responses are sampled; what it raises ends the sampling."""
    updates: int = 0
    """Optimiser steps that the student has behind it: by these an engine that holds a copy knows whether it is old."""

    def select(self, index: Sequence[int]) -> RolloutKey:
        """The key of the prompts at ``index``."""
        return replace(self, epochs=[self.epochs[i] for i in index])


class Policy(Protocol):
    """Writes the responses to a batch of prompts."""

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """One or more responses per prompt, with authors and, where wanted, the teacher's evidence."""
        ...


def rolled_out(policy: Policy, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
    """The responses of a policy. With several teachers, each one's prompts by themselves, as if it were the only one.

    Noise is a function of the sample, so that each response is the one of a run with its teacher alone.
    """
    if not pair.routes:
        return policy.rollout(pair, prompts, key)
    if not len(prompts):
        return replace(policy.rollout(next(iter(pair.routes.values())), prompts, key), routes=[])
    parts = []
    for route, index in by_route(prompts.routes, len(prompts)):
        rollout = policy.rollout(pair.of(route), prompts.select(index), key.select(index))
        judged = {str(route): (rollout.stats.kept, rollout.stats.replaced)}
        stats = replace(rollout.stats, by_teacher=judged)
        parts.append((index, replace(rollout, routes=[str(route)] * len(rollout), stats=stats)))
    return merged(parts)


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled. The warps default to the paper's (Xu et al. 2025, section 4)."""

    student_warp: Warp = field(default_factory=lambda: Warp(temperature=0.5, top_p=0.5))
    teacher_warp: Warp = field(default_factory=lambda: Warp(temperature=0.2))
    max_new_tokens: int = 128
    slots: int = 64
    responses_per_prompt: int = 1
    stop_strings: tuple[str, ...] = ()
    evidence: bool = True
    """Keep the teacher's last hidden states for the loss."""
    student_logp: bool = False
    """Keep the raw log-probs that the student gave its tokens while it sampled."""
    kept_prompts: PromptCache | None = None
    """Where what the frozen teacher makes of prompts is kept; see ``skd.interleave``."""
    execution: Eager = Eager()  # noqa: RUF009 - a value without state
    """How the models' passes run."""


@dataclass(frozen=True)
class DataSet:
    """The data set's own references, or responses stored earlier, with the authors they were stored with."""

    evidence: bool = True
    """Keep what is known of the teacher for the loss."""

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """The references as responses. Raises DataError when the prompts have none, or do not fit with them."""
        if prompts.references is None:
            raise DataError(
                Problem("SKD-C10", "data", "has no references, which this policy learns from", "name response_field")
            )
        require_prompts(prompts, [len(ids) for ids in prompts.references], pair.context, pair.vocab_size)
        prompt_ids = _tensors(prompts.ids, torch.int64)
        response_ids = _tensors(prompts.references, torch.int64)
        authors = prompts.reference_authors or [[DATA] * len(ids) for ids in prompts.references]
        rollout = Rollout(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            authors=_tensors(authors, torch.uint8),
            truncated=torch.zeros(len(prompts), dtype=torch.bool),
            sample_ids=list(prompts.sample_ids),
            response_index=[0] * len(prompts),
            teacher_prompt_ids=None if prompts.teacher_ids is None else _tensors(prompts.teacher_ids, torch.int64),
            masks=None if prompts.reference_masks is None else _tensors(prompts.reference_masks, torch.bool),
            tokenizer=pair.tokenizer,
        )
        if not self.evidence:
            return rollout
        started = time.perf_counter()
        evidence = _evidence(pair, prompts, rollout)
        stats = SamplerStats(seconds_evidence=time.perf_counter() - started)
        return replace(rollout, evidence=evidence, stats=stats)


def _evidence(pair: Pair, prompts: Prompts, rollout: Rollout) -> Evidence:
    """From the teacher where there is one, since all of it is known there; otherwise what was stored of it."""
    if pair.engine is None and prompts.reference_evidence is not None:
        return list(prompts.reference_evidence)
    return pair.required_engine.score(rollout.read_by_teacher, rollout.response_ids)


def _tensors(rows: Sequence[Sequence[int]], dtype: torch.dtype) -> list[Tensor]:
    return [torch.tensor(list(row), dtype=dtype) for row in rows]


@dataclass(frozen=True)
class Interleaved:
    """The student drafts, the teacher judges (SKD). ``block`` changes the cost, not the responses."""

    gate: Gate = field(default_factory=TopK)
    block: int | None = None
    """Tokens drafted before the teacher looks; None chooses as acceptance says."""
    sampling: Sampling = field(default_factory=Sampling)

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """See ``skd.interleave``."""
        sampling = self.sampling
        return interleave(
            pair,
            prompts,
            gate=self.gate,
            block=self.block,
            student_warp=sampling.student_warp,
            teacher_warp=sampling.teacher_warp,
            max_new_tokens=sampling.max_new_tokens,
            slots=sampling.slots,
            responses_per_prompt=sampling.responses_per_prompt,
            stop_strings=sampling.stop_strings,
            seed=key.seed,
            epoch=key.epochs,
            progress=key.progress,
            evidence=sampling.evidence,
            student_logp=sampling.student_logp,
            kept_prompts=sampling.kept_prompts,
            execution=sampling.execution,
            check=key.check,
        )


@dataclass(frozen=True)
class Student:
    """The student alone (on-policy)."""

    sampling: Sampling = field(default_factory=Sampling)

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """The interleaved sampler with a gate that keeps every draft."""
        return Interleaved(gate=AcceptAll(), sampling=self.sampling).rollout(pair, prompts, key)


@dataclass(frozen=True)
class Teacher:
    """The teacher alone."""

    sampling: Sampling = field(default_factory=Sampling)

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """The interleaved sampler with a gate that keeps no draft."""
        return Interleaved(gate=AcceptNone(), sampling=self.sampling).rollout(pair, prompts, key)


@dataclass(frozen=True)
class Mixture:
    """Each response by one of several policies (ImitKD: Lin et al., 2020, arXiv 2009.07253).

    The coin is a function of (seed, epoch, sample id), so that ranks, batches and resumes agree. Weights need not add
    up to 1; a schedule runs over training. Raises ConfigError without a policy, or for a negative weight.
    """

    policies: tuple[Policy, ...]
    weights: tuple[Number, ...]

    def __post_init__(self) -> None:
        if not self.policies or len(self.policies) != len(self.weights):
            found = f"has {len(self.policies)} policies and {len(self.weights)} weights"
            raise ConfigError(Problem("SKD-C07", "policy.parts", found, "give every policy one weight"))
        if any(end < 0.0 for weight in self.weights for end in ends(weight)):
            found = "has a negative weight"
            raise ConfigError(Problem("SKD-C07", "policy.parts", found, "weights are 0 or more"))

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """Each policy writes its own prompts; the responses come back in the order of the prompts."""
        if not len(prompts):  # of one process among several
            return self.policies[0].rollout(pair, prompts, key)
        chosen = self.choose(prompts, key)
        parts = []
        for number, policy in enumerate(self.policies):
            index = [i for i, choice in enumerate(chosen) if choice == number]
            if index:
                parts.append((index, policy.rollout(pair, prompts.select(index), key.select(index))))
        return merged(parts)

    def choose(self, prompts: Prompts, key: RolloutKey) -> list[int]:
        """Which policy writes each prompt's responses. Raises ConfigError when all weights are 0 at this point."""
        position = torch.zeros(1)
        weights = torch.tensor([float(value_at(weight, key.progress, position)) for weight in self.weights])
        if not weights.sum() > 0.0:
            found = f"all weights are 0 when {key.progress:.0%} of the training is done"
            raise ConfigError(Problem("SKD-C07", "policy.parts", found, "let one weight be above 0 throughout"))
        epochs, samples = torch.tensor(list(key.epochs)), torch.tensor(list(prompts.sample_ids))
        coins = uniform(key.seed, Purpose.COIN, epochs, samples, 0, 0)
        return draw((weights / weights.sum()).log().expand(len(prompts), -1), coins).tolist()


@dataclass(frozen=True)
class Staged:
    """Policies that follow each other, each for a share of the optimiser steps (two-stage KD: supervised, then
    on-policy). The shares add up to 1. Raises ConfigError when they do not."""

    policies: tuple[Policy, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.policies) != len(self.shares) or abs(sum(self.shares) - 1.0) > 1e-6:
            found = f"has {len(self.policies)} policies and shares {self.shares}"
            raise ConfigError(Problem("SKD-C07", "policy.parts", found, "give one share for each; they add up to 1"))

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """By the policy whose stage it is."""
        ended = [end <= key.progress + 1e-9 for end in accumulate(self.shares)]
        return self.policies[min(sum(ended), len(self.policies) - 1)].rollout(pair, prompts, key)

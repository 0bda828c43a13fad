"""Policies: who writes the responses that the student learns from.

The data set, the teacher, the student, or both interleaved. Teacher and student alone are the two limits of the
interleaved sampler: the gate that keeps nothing and the gate that keeps everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from skd.errors import DataError, Problem
from skd.models.score import score
from skd.sampling import AcceptAll, AcceptNone, Gate, TopK, TopP, Warp, interleave
from skd.sampling.checks import require_prompts
from skd.types import DATA, Prompts, Rollout

if TYPE_CHECKING:
    from skd.config.schema import GateConfig, RunConfig
    from skd.models.pair import Pair

__all__ = [
    "DataSet",
    "Interleaved",
    "Policy",
    "RolloutKey",
    "Sampling",
    "Student",
    "Teacher",
    "build_gate",
    "build_policy",
]


@dataclass(frozen=True)
class RolloutKey:
    """What keys the noise of a rollout, besides each prompt's sample id."""

    seed: int
    epochs: Sequence[int]
    """One per prompt: the pass over the data in which it is used."""
    step: int
    """Optimiser step, from 0, for gates with schedules."""


class Policy(Protocol):
    """Writes the responses to a batch of prompts."""

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """One or more responses per prompt, with authors and, where wanted, the teacher's evidence."""
        ...


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


@dataclass(frozen=True)
class DataSet:
    """The data set's own references."""

    evidence: bool = True

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """The references as responses. Raises DataError when the prompts have none, or do not fit with them."""
        if prompts.references is None:
            raise DataError(
                Problem("SKD-C10", "data", "has no references, which this policy learns from", "name response_field")
            )
        require_prompts(prompts, [len(ids) for ids in prompts.references], pair.context, pair.vocab_size)
        prompt_ids = [torch.tensor(list(ids), dtype=torch.int64) for ids in prompts.ids]
        response_ids = [torch.tensor(list(ids), dtype=torch.int64) for ids in prompts.references]
        masks = prompts.reference_masks
        return Rollout(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            authors=[torch.full((len(ids),), DATA, dtype=torch.uint8) for ids in response_ids],
            truncated=torch.zeros(len(prompts), dtype=torch.bool),
            sample_ids=list(prompts.sample_ids),
            response_index=[0] * len(prompts),
            evidence=score(pair.required_teacher, prompt_ids, response_ids) if self.evidence else None,
            masks=None if masks is None else [torch.tensor(list(mask), dtype=torch.bool) for mask in masks],
            tokenizer=pair.tokenizer,
        )


@dataclass(frozen=True)
class Interleaved:
    """The student drafts, the teacher judges (SKD). ``block`` changes the cost, not the responses."""

    gate: Gate = field(default_factory=TopK)
    block: int = 5
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
            step=key.step,
            evidence=sampling.evidence,
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


def build_gate(config: GateConfig) -> Gate:
    """The gate that a config names."""
    if config.kind == "top_k":
        return TopK(config.k)
    if config.kind == "top_p":
        return TopP(config.p)
    return AcceptAll() if config.kind == "accept_all" else AcceptNone()


def build_policy(config: RunConfig) -> Policy:
    """The policy that a config names, with its sampling settings.

    Evidence is kept only where the objective needs the teacher and ``sampling.evidence`` is ``keep``; otherwise the
    training step computes it by one more forward.
    """
    policy, settings = config.resolved_policy, config.sampling
    evidence = config.resolved_objective.kind != "nll" and settings.evidence == "keep"
    sampling = Sampling(
        student_warp=Warp(settings.student.temperature, settings.student.top_p),
        teacher_warp=Warp(settings.teacher.temperature, settings.teacher.top_p),
        max_new_tokens=settings.max_new_tokens,
        slots=settings.slots,
        responses_per_prompt=settings.responses_per_prompt,
        stop_strings=tuple(settings.stop_strings),
        evidence=evidence,
    )
    if policy.kind == "data_set":
        return DataSet(evidence)
    if policy.kind == "teacher":
        return Teacher(sampling)
    if policy.kind == "student":
        return Student(sampling)
    return Interleaved(build_gate(policy.gate), policy.block, sampling)

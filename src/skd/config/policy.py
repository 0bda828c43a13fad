"""Who writes the response: policies, and the gates of the interleaved one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from skd.config.fields import Count, ImportPath, InRange, Real, Section, Share, Text, kind_from_text, not_empty, refused
from skd.config.numbers import NotNegative, Rank, ScheduleConfig, ScheduledShare

__all__ = [
    "AcceptAllGate",
    "AcceptNoneGate",
    "CustomGate",
    "DataSetPolicy",
    "GateConfig",
    "InterleavedPolicy",
    "InterpolatedGate",
    "MinProbGate",
    "MixturePolicy",
    "PartConfig",
    "PolicyConfig",
    "StageConfig",
    "StagedPolicy",
    "StudentPolicy",
    "SwitchOnceGate",
    "TeacherPolicy",
    "TopKGate",
    "TopPGate",
    "writers",
]


class TopKGate(Section):
    """A drafted token is kept when it is among the teacher's k most probable ones (SKD)."""

    kind: Literal["top_k"] = "top_k"
    """The gate."""
    k: Rank = 25
    """A draft is kept when it is among this many most probable tokens of the raw teacher."""


class TopPGate(Section):
    """A drafted token is kept when it is in the smallest set of the teacher's tokens that holds mass p."""

    kind: Literal["top_p"] = "top_p"
    """The gate."""
    p: Annotated[Real, AfterValidator(InRange(0, 1, open_low=True))]
    """Probability mass of the raw teacher that a draft must be within."""


class MinProbGate(Section):
    """A drafted token is kept when the teacher gives it at least this probability (CA-OPD)."""

    kind: Literal["min_prob"] = "min_prob"
    """The gate."""
    floor: ScheduledShare
    """Smallest probability of the raw teacher."""


class InterpolatedGate(Section):
    """Tokens are distributed exactly as (1 - g) student + g teacher (IPD, arXiv 2609.37170)."""

    kind: Literal["interpolated"] = "interpolated"
    """The gate."""
    g: ScheduledShare = 0.1
    """Weight of the teacher."""


class SwitchOnceGate(Section):
    """The student writes until its divergence from the teacher jumps, then the teacher (AdaSwitch)."""

    kind: Literal["switch_once"] = "switch_once"
    """The gate."""
    factor: Annotated[Real, AfterValidator(InRange(0, open_low=True))] = 3.0
    """The switch comes when a token's divergence exceeds this many times the mean of those before it."""


class AcceptAllGate(Section):
    """Every draft is kept: the student alone."""

    kind: Literal["accept_all"] = "accept_all"
    """The gate."""


class AcceptNoneGate(Section):
    """Every draft is replaced: the teacher alone."""

    kind: Literal["accept_none"] = "accept_none"
    """The gate."""


class CustomGate(Section):
    """A gate of one's own: any class with the methods of skd.sampling.Gate. Importing it runs its module."""

    kind: Literal["custom"] = "custom"
    """The gate."""
    path: ImportPath
    """Where it is: package.module:Name."""
    options: dict[Text, JsonValue] = Field(default_factory=dict)
    """Arguments by name."""


GateConfig = Annotated[
    TopKGate | TopPGate | MinProbGate | InterpolatedGate | SwitchOnceGate | AcceptAllGate | AcceptNoneGate | CustomGate,
    Field(discriminator="kind"),
    BeforeValidator(kind_from_text),
]
"""A plain name is a gate with its defaults."""


class DataSetPolicy(Section):
    """Responses come from the data set."""

    kind: Literal["data_set"] = "data_set"
    """Who writes the response."""


class TeacherPolicy(Section):
    """Responses are sampled from the teacher."""

    kind: Literal["teacher"] = "teacher"
    """Who writes the response."""


class StudentPolicy(Section):
    """Responses are sampled from the student."""

    kind: Literal["student"] = "student"
    """Who writes the response."""


class InterleavedPolicy(Section):
    """The student drafts, and the teacher replaces what its gate rejects (arXiv 2410.11325, algorithm 1)."""

    kind: Literal["interleaved"] = "interleaved"
    """Who writes the response."""
    gate: GateConfig = TopKGate()
    """The rule by which a drafted token is kept or replaced."""
    block: Count | None = None
    """Tokens drafted before the teacher looks; changes the speed, not the responses. null follows the acceptance."""


class PartConfig(Section):
    """One policy of a mixture."""

    weight: NotNegative
    """Share of the responses, after dividing by the sum of all weights; a schedule runs over training."""
    policy: PolicyConfig
    """Who writes them."""

    @model_validator(mode="after")
    def _over_training(self) -> PartConfig:
        if isinstance(self.weight, ScheduleConfig) and self.weight.over == "response":
            found = "is response, and one coin decides for a whole response"
            raise refused("weight.over", found, "write over: training, and leave tokens out")
        return self


class MixturePolicy(Section):
    """Each response is written by one of several policies, chosen by a coin that depends on seed, epoch and row."""

    kind: Literal["mixture"] = "mixture"
    """Who writes the response."""
    parts: Annotated[tuple[PartConfig, ...], AfterValidator(not_empty)]
    """The policies with their weights."""

    @model_validator(mode="after")
    def _some_weight(self) -> MixturePolicy:
        for end in (0, 1):
            if not any(_ends(part.weight)[end] for part in self.parts):
                when = "end" if end else "start"
                raise refused("parts", f"has only weights of 0 at the {when} of the training", "let one be above 0")
        return self


def _ends(number: float | ScheduleConfig) -> tuple[float, float]:
    return (number.start, number.end) if isinstance(number, ScheduleConfig) else (number, number)


class StageConfig(Section):
    """One policy of several that follow each other."""

    share: Share
    """Share of the optimiser steps."""
    policy: PolicyConfig
    """Who writes the responses in it."""


class StagedPolicy(Section):
    """Policies that follow each other over the training. Validation looks at the last one."""

    kind: Literal["staged"] = "staged"
    """Who writes the response."""
    parts: Annotated[tuple[StageConfig, ...], AfterValidator(not_empty)]
    """The policies in their order; the shares add up to 1."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> StagedPolicy:
        total = sum(part.share for part in self.parts)
        if abs(total - 1.0) > 1e-6:
            shares = ", ".join(f"{part.share:g}" for part in self.parts)
            raise refused("parts", f"has the shares {shares}, which add up to {total:g}", "make them add up to 1")
        return self


PolicyConfig = Annotated[
    DataSetPolicy | TeacherPolicy | StudentPolicy | InterleavedPolicy | MixturePolicy | StagedPolicy,
    Field(discriminator="kind"),
    BeforeValidator(kind_from_text),
]
"""A plain name is a policy with its defaults."""

for section in (PartConfig, MixturePolicy, StageConfig, StagedPolicy):
    section.model_rebuild()


def writers(policy: PolicyConfig) -> Iterator[str]:
    """The kinds of the policies that write: those inside a mixture or stages, otherwise its own."""
    parts = getattr(policy, "parts", ())
    if not parts:
        yield policy.kind
    for part in parts:
        yield from writers(part.policy)

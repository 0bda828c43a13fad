"""The two axes of a method: who writes the response (policy, gate) and what is learned from it (objective)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from skd.config.fields import Count, InRange, Real, Section, Share

__all__ = [
    "AcceptAllGate",
    "AcceptNoneGate",
    "DataSetPolicy",
    "GateConfig",
    "InterleavedPolicy",
    "ObjectiveConfig",
    "PolicyConfig",
    "StudentPolicy",
    "TeacherPolicy",
    "TopKGate",
    "TopPGate",
]


class TopKGate(Section):
    """A drafted token is kept when it is among the teacher's k most probable ones."""

    kind: Literal["top_k"] = "top_k"
    """The gate; the others are top_p, accept_all and accept_none."""
    k: Count = 25
    """A draft is kept when it is among this many most probable tokens of the raw teacher."""


class TopPGate(Section):
    """A drafted token is kept when it is in the smallest set of the teacher's tokens that holds mass p."""

    kind: Literal["top_p"] = "top_p"
    """The gate; the others are top_k, accept_all and accept_none."""
    p: Annotated[Real, AfterValidator(InRange(0, 1, open_low=True))]
    """Probability mass of the raw teacher that a draft must be within."""


class AcceptAllGate(Section):
    """Every draft is kept: the student alone."""

    kind: Literal["accept_all"] = "accept_all"
    """The gate; the others are top_k, top_p and accept_none."""


class AcceptNoneGate(Section):
    """Every draft is replaced: the teacher alone."""

    kind: Literal["accept_none"] = "accept_none"
    """The gate; the others are top_k, top_p and accept_all."""


GateConfig = Annotated[TopKGate | TopPGate | AcceptAllGate | AcceptNoneGate, Field(discriminator="kind")]


class DataSetPolicy(Section):
    """Responses come from the data set."""

    kind: Literal["data_set"] = "data_set"
    """Who writes the response: data_set, teacher, student or interleaved."""


class TeacherPolicy(Section):
    """Responses are sampled from the teacher."""

    kind: Literal["teacher"] = "teacher"
    """Who writes the response: data_set, teacher, student or interleaved."""


class StudentPolicy(Section):
    """Responses are sampled from the student."""

    kind: Literal["student"] = "student"
    """Who writes the response: data_set, teacher, student or interleaved."""


class InterleavedPolicy(Section):
    """The student drafts, and the teacher replaces what its gate rejects (arXiv 2410.11325, algorithm 1)."""

    kind: Literal["interleaved"] = "interleaved"
    """Who writes the response: data_set, teacher, student or interleaved."""
    gate: GateConfig = TopKGate()
    """The rule by which a drafted token is kept or replaced."""
    block: Count = 5
    """Tokens drafted before the teacher looks; changes the speed, not the responses."""


PolicyConfig = Annotated[DataSetPolicy | TeacherPolicy | StudentPolicy | InterleavedPolicy, Field(discriminator="kind")]


class ObjectiveConfig(Section):
    """The loss of a response."""

    kind: Literal["nll", "forward_kl", "reverse_kl", "jsd"]
    """nll (no teacher needed), forward_kl, reverse_kl or jsd."""
    beta: Annotated[Real, AfterValidator(InRange(0, 1, open_low=True, open_high=True))] = 0.5
    """Weight of the teacher in the mixture of jsd."""
    temperature: Annotated[Real, AfterValidator(InRange(0, open_low=True))] = 1.0
    """Divides the logits of both models in the loss."""
    reduction: Literal["token", "sequence"] = "token"
    """token: every token counts alike; sequence: the mean of each response, then over responses."""

    @model_validator(mode="after")
    def _beta_of_jsd(self) -> ObjectiveConfig:
        if "beta" in self.model_fields_set and self.kind != "jsd":
            raise PydanticCustomError(
                "idle_beta", "objective.beta is given and objective.kind is {kind}", {"kind": self.kind}
            )
        return self

    @model_serializer(mode="wrap")
    def _without_idle_beta(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A beta that means nothing is refused when read, so it must not be written either.
        return {key: value for key, value in dump(self).items() if key != "beta" or self.kind == "jsd"}


WarpTemperature = Annotated[Real, AfterValidator(InRange(0))]
WarpTopP = Annotated[Share, AfterValidator(InRange(0, 1, open_low=True))]

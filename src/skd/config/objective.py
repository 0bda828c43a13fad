"""What is learned from a response: loss, target and token weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from skd.config.fields import Count, ImportPath, InRange, Real, Section, Share, Text, kind_from_text
from skd.config.numbers import NotNegative, OpenShare, ScheduleConfig, ScheduledShare

__all__ = [
    "ByAuthorWeights",
    "CustomLoss",
    "ForwardKLLoss",
    "JSDLoss",
    "LossConfig",
    "NLLLoss",
    "ObjectiveConfig",
    "PlainTarget",
    "PolicyGradientLoss",
    "ReverseKLLoss",
    "SampledReverseKLLoss",
    "SkewKLLoss",
    "SkewReverseKLLoss",
    "TaidTarget",
    "TargetConfig",
    "TeacherTopKWeights",
    "TotalVariationLoss",
    "VetoTarget",
    "WeightsConfig",
]

_Weight = Annotated[Real, AfterValidator(InRange(0))]


class NLLLoss(Section):
    """Negative log-likelihood of the token written; needs no teacher."""

    kind: Literal["nll"] = "nll"
    """The loss."""


class ForwardKLLoss(Section):
    """KL(teacher || student)."""

    kind: Literal["forward_kl"] = "forward_kl"
    """The loss."""


class ReverseKLLoss(Section):
    """KL(student || teacher)."""

    kind: Literal["reverse_kl"] = "reverse_kl"
    """The loss."""


class JSDLoss(Section):
    """Generalised Jensen-Shannon divergence; it tends to 0 at both ends of beta, where it is not the two KLs."""

    kind: Literal["jsd"] = "jsd"
    """The loss."""
    beta: OpenShare = 0.5
    """Weight of the teacher in the mixture."""


class SkewKLLoss(Section):
    """KL(teacher || alpha teacher + (1 - alpha) student)."""

    kind: Literal["skew_kl"] = "skew_kl"
    """The loss."""
    alpha: OpenShare = 0.1
    """Weight of the teacher in the mixture."""


class SkewReverseKLLoss(Section):
    """KL(student || alpha student + (1 - alpha) teacher)."""

    kind: Literal["skew_reverse_kl"] = "skew_reverse_kl"
    """The loss."""
    alpha: OpenShare = 0.1
    """Weight of the student in the mixture."""


class TotalVariationLoss(Section):
    """Half the sum of the absolute differences of the probabilities."""

    kind: Literal["total_variation"] = "total_variation"
    """The loss."""


class PolicyGradientLoss(Section):
    """Reverse KL from the token written alone, as a policy gradient (the k1 estimator)."""

    kind: Literal["policy_gradient"] = "policy_gradient"
    """The loss."""
    clip: Annotated[Real, AfterValidator(InRange(0, open_low=True))] | None = None
    """Distance from 1 at which the ratio of new and old student is clipped; null for no clipping."""


class SampledReverseKLLoss(Section):
    """Reverse KL from the token written alone, by the k3 estimator."""

    kind: Literal["sampled_reverse_kl"] = "sampled_reverse_kl"
    """The loss."""


class CustomLoss(Section):
    """A loss of one's own: any class with the methods of skd.objectives.TokenLoss. Importing it runs its module."""

    kind: Literal["custom"] = "custom"
    """The loss."""
    path: ImportPath
    """Where it is: package.module:Name."""
    options: dict[Text, JsonValue] = Field(default_factory=dict)
    """Arguments by name."""


LossConfig = Annotated[
    NLLLoss
    | ForwardKLLoss
    | ReverseKLLoss
    | JSDLoss
    | SkewKLLoss
    | SkewReverseKLLoss
    | TotalVariationLoss
    | PolicyGradientLoss
    | SampledReverseKLLoss
    | CustomLoss,
    Field(discriminator="kind"),
    BeforeValidator(kind_from_text),
]
"""A plain name is a loss with its defaults."""


class PlainTarget(Section):
    """The teacher's distribution."""

    kind: Literal["plain"] = "plain"
    """The distribution to learn."""


class VetoTarget(Section):
    """teacher x student^beta, normalised (Veto)."""

    kind: Literal["veto"] = "veto"
    """The distribution to learn."""
    beta: NotNegative = ScheduleConfig(start=1.0, end=0.0)
    """Power of the student; 0 is the teacher alone."""


class TaidTarget(Section):
    """teacher^t x student^(1 - t), normalised (TAID)."""

    kind: Literal["taid"] = "taid"
    """The distribution to learn."""
    t: ScheduledShare = ScheduleConfig(start=0.4, end=1.0)
    """Way from the student to the teacher."""


TargetConfig = Annotated[
    PlainTarget | VetoTarget | TaidTarget, Field(discriminator="kind"), BeforeValidator(kind_from_text)
]


class ByAuthorWeights(Section):
    """Weights by who wrote the token."""

    kind: Literal["by_author"] = "by_author"
    """How tokens are weighted."""
    data: _Weight = 1.0
    """Weight of the data set's tokens."""
    student: _Weight = 1.0
    """Weight of the student's tokens."""
    teacher: _Weight = 1.0
    """Weight of the teacher's tokens."""


class TeacherTopKWeights(Section):
    """Full weight for tokens among the teacher's k most probable (SelecTKD)."""

    kind: Literal["teacher_top_k"] = "teacher_top_k"
    """How tokens are weighted."""
    k: Count = 5
    """A token passes when it is among this many of the raw teacher."""
    rejected: Share = 0.0
    """Weight of the others."""


WeightsConfig = Annotated[
    ByAuthorWeights | TeacherTopKWeights, Field(discriminator="kind"), BeforeValidator(kind_from_text)
]


class ObjectiveConfig(Section):
    """What is learned from a response."""

    loss: LossConfig = ForwardKLLoss()
    """Loss of a token; a plain name stands for one with its defaults."""
    data: LossConfig | None = None
    """Loss of tokens from the data set; null for loss."""
    student: LossConfig | None = None
    """Loss of tokens that the student wrote; null for loss."""
    teacher: LossConfig | None = None
    """Loss of tokens that the teacher wrote; null for loss."""
    target: TargetConfig = PlainTarget()
    """The distribution to learn."""
    weights: WeightsConfig = ByAuthorWeights()
    """How much each token counts."""
    temperature: Annotated[Real, AfterValidator(InRange(0, open_low=True))] = 1.0
    """Divides the logits of both models in the loss."""
    reduction: Literal["token", "sequence"] = "token"
    """token: every token counts alike; sequence: the mean of each response, then over responses."""

    @property
    def losses(self) -> tuple[LossConfig, LossConfig, LossConfig]:
        """The losses of tokens from the data set, the student and the teacher."""
        return self.data or self.loss, self.student or self.loss, self.teacher or self.loss

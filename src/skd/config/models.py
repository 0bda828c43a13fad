"""Which models a run is about: the ``student`` and ``teacher`` sections of a config file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from skd.config.fields import Count, Flag, HubId, InRange, PathText, Real, Section, Text, not_empty, path_from_text

__all__ = [
    "AdapterOffTeacher",
    "AverageTeacher",
    "HubConfig",
    "LoraConfig",
    "ModelConfig",
    "StudentModel",
    "StudentTeacher",
    "TeacherConfig",
    "TeacherModel",
]


class ModelConfig(Section):
    """A causal language model: local directory, Hub id, or one inside the package. A plain string is its path."""

    path: PathText
    """Directory, Hub id, or builtin:TASK/ROLE for a model inside the package."""
    revision: Text | None = None
    """Commit, tag or branch on the Hub."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights of the teacher, or of the student's copy that samples; its master weights stay float32."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention of the training forward."""
    quantization: Literal["int8", "nf4"] | None = None
    """Bits of the linear layers: int8 by torchao, nf4 (4 bits) by bitsandbytes; a student needs lora, too."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return path_from_text(value)


class LoraConfig(Section):
    """Adapters of low rank, which are trained in place of the weights (LoRA, arXiv 2106.09685); needs skd[lora]."""

    r: Count = 16
    """Rank."""
    alpha: Annotated[Real, AfterValidator(InRange(0, open_low=True))] = 32.0
    """Adapters are multiplied by alpha / r."""
    dropout: Annotated[Real, AfterValidator(InRange(0, 1, open_high=True))] = 0.0
    """Share of an adapter's inputs that is dropped in training."""
    targets: Annotated[tuple[Annotated[Text, Field(min_length=1)], ...], AfterValidator(not_empty)] | None = None
    """Last names of the linear layers that get adapters, such as q_proj; null for all but the head."""


class StudentModel(ModelConfig):
    """The model that is trained."""

    lora: LoraConfig | None = None
    """Train adapters and leave the weights as they are; the export has both in one. null trains the weights."""


class HubConfig(Section):
    """Where the student is pushed once the run is complete. The token is that of the environment variable HF_TOKEN."""

    repo: HubId
    """Repository, OWNER/NAME; it is made where there is none."""
    private: Flag = True
    """Whether a new repository is private."""
    revision: Annotated[Text, Field(min_length=1)] | None = None
    """Branch; null for the main one."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"repo": value} if isinstance(value, str) else value


class TeacherModel(ModelConfig):
    """A model of its own as teacher."""

    kind: Literal["model"] = "model"
    """model; student, average or adapter_off for a teacher made of the student."""


class StudentTeacher(Section):
    """The student's current weights as teacher. It knows more than the student through data.teacher_prompt."""

    kind: Literal["student"]
    """student; average for its moving average, adapter_off for the weights before training, model for another."""


class AdapterOffTeacher(Section):
    """The student with its adapters off as teacher: a frozen copy of the start that takes no memory."""

    kind: Literal["adapter_off"]
    """adapter_off; student for the current weights, average for their average, model for another model."""


class AverageTeacher(Section):
    """The moving average of the student's weights as teacher; it starts as the student (arXiv 1703.01780)."""

    kind: Literal["average"]
    """average; student for its current weights, adapter_off for those before training, model for another model."""
    decay: Annotated[Real, AfterValidator(InRange(0, 1, open_high=True))] = 0.999
    """Share of the average that each update keeps."""


TeacherConfig = Annotated[
    TeacherModel | StudentTeacher | AverageTeacher | AdapterOffTeacher,
    Field(discriminator="kind"),
    BeforeValidator(lambda value: path_from_text(value, kind="model")),
]
"""A plain string is the path of a model."""

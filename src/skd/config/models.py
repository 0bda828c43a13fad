"""Which models a run is about: the ``student`` and ``teacher`` sections of a config file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from skd.config.fields import (
    Count,
    Flag,
    HubId,
    InRange,
    Integer,
    PathText,
    Real,
    Seconds,
    Section,
    ServerUrl,
    Text,
    not_empty,
    path_from_text,
)

__all__ = [
    "AdapterOffTeacher",
    "AverageTeacher",
    "HubConfig",
    "LoraConfig",
    "ModelConfig",
    "OneTeacher",
    "RoutedTeacher",
    "ServerTeacher",
    "StudentModel",
    "StudentTeacher",
    "TeacherConfig",
    "TeacherModel",
    "teachers_of",
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


class ServerTeacher(Section):
    """A teacher on a server, which keeps its weights. Its key is that of the environment variable SKD_TEACHER_TOKEN."""

    kind: Literal["server"] = "server"
    """server; model for a teacher in this process."""
    engine: Literal["vllm"]
    """vllm: a stock vLLM server, started with --max-logprobs of at least top_logprobs."""
    url: ServerUrl
    """Address, such as http://127.0.0.1:8000; without key, query or user."""
    model: Annotated[Text, Field(min_length=1)] | None = None
    """Name that the server gives the teacher; null for the only one it serves."""
    top_logprobs: Annotated[Integer, AfterValidator(InRange(1, 4096))] = 64
    """Most probable ids asked for at each token: what the gate, the replacements and the loss know of the teacher."""
    concurrency: Annotated[Integer, AfterValidator(InRange(1, 1024))] = 32
    """Requests at once."""
    silence_seconds: Seconds = 60.0
    """Longest wait for the next bytes of an answer before it is asked again."""
    total_seconds: Seconds = 300.0
    """Time for all answers of one block, tries included; then the run is saved and ends."""
    tries: Count = 5
    """How often one answer is asked for."""


def _teacher(value: Any) -> Any:
    for key, kind in (("engine", "server"), ("by", "routed")):
        if isinstance(value, Mapping) and key in value and "kind" not in value:
            return {"kind": kind, **value}
    return path_from_text(value, kind="model")


def _some(value: Any) -> Any:
    if not value:
        raise PydanticCustomError("bad_value", "{expected}", {"expected": "a mapping of values to teachers, not empty"})
    return value


OneTeacher = Annotated[TeacherModel | ServerTeacher, Field(discriminator="kind"), BeforeValidator(_teacher)]
"""A teacher that is made of no student; a plain string is the path of a model."""


class RoutedTeacher(Section):
    """Several teachers, such as one for each domain: a field of the data says which one a row has."""

    kind: Literal["routed"] = "routed"
    """routed; model for one teacher."""
    route: Annotated[Text, Field(min_length=1)]
    """Key in a row of the data whose value names its teacher, such as domain."""
    by: Annotated[dict[Text, OneTeacher], AfterValidator(_some)]
    """The teacher of each value: a path, a model's keys, or a server's."""


TeacherConfig = Annotated[
    TeacherModel | StudentTeacher | AverageTeacher | AdapterOffTeacher | ServerTeacher | RoutedTeacher,
    Field(discriminator="kind"),
    BeforeValidator(_teacher),
]
"""A plain string is the path of a model."""


def teachers_of(teacher: TeacherConfig | None) -> Mapping[str, TeacherConfig]:
    """The teachers by their keys in the config: ``teacher`` for one, ``teacher.by.VALUE`` for several."""
    if isinstance(teacher, RoutedTeacher):
        return {f"teacher.by.{name}": one for name, one in teacher.by.items()}
    return {} if teacher is None else {"teacher": teacher}

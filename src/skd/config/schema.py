"""The config file as typed values. ``RunConfig`` is the root; docs of the fields stand under them.

What is checked here needs no file, model or data: types, ranges, and options that contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from skd.config.contradictions import contradictions
from skd.config.fields import (
    Count,
    Flag,
    InRange,
    Integer,
    PathText,
    Real,
    Seconds,
    Section,
    Seed,
    Share,
    Text,
    kind_from_text,
)
from skd.config.methods import ALIASES, METHODS, MethodName, with_method
from skd.config.models import (
    HubConfig,
    ModelConfig,
    RoutedTeacher,
    StudentModel,
    TeacherConfig,
    TeacherModel,
    teachers_of,
)
from skd.config.objective import ObjectiveConfig
from skd.config.policy import InterleavedPolicy, PolicyConfig, writers
from skd.config.sources import DataConfig

__all__ = [
    "MeasuredCosts",
    "RolloutsConfig",
    "RunConfig",
    "SamplingConfig",
    "StudentWarpConfig",
    "TeacherWarpConfig",
    "TrainConfig",
    "WarpConfig",
]

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]
FORMAT = 1
"""Version of the config file that this release reads."""


WarpTemperature = Annotated[Real, AfterValidator(InRange(0))]
WarpTopP = Annotated[Share, AfterValidator(InRange(0, 1, open_low=True))]


class WarpConfig(Section):
    """How a model's distribution is changed before a token is drawn from it."""

    temperature: WarpTemperature = 1.0
    """0 takes the most probable token."""
    top_p: WarpTopP = 1.0
    """Draw from the smallest set of tokens that holds this probability mass."""


class StudentWarpConfig(WarpConfig):
    """The student's warp; a key left out keeps the default here, also when the other one is given."""

    temperature: WarpTemperature = 0.5
    """0 takes the most probable token."""
    top_p: WarpTopP = 0.5
    """Draw from the smallest set of tokens that holds this probability mass."""


class TeacherWarpConfig(WarpConfig):
    """The teacher's warp."""

    temperature: WarpTemperature = 0.2
    """0 takes the most probable token."""


class RolloutsConfig(Section):
    """vLLM writes what the student, or a teacher in this process, writes alone; interleaved responses it does not.

    It runs as a child process with a copy of the weights, renewed after optimiser steps. Bits are not promised.
    """

    engine: Literal["vllm"]
    """vllm."""
    python: PathText
    """The python of the environment that vLLM is in: it wants other versions of libraries than skd."""
    transfer: Literal["files", "nccl"] = "files"
    """How weights get into it: files, or nccl from GPU to GPU, to one of its own, which no one has run yet."""
    max_staleness: Annotated[Integer, AfterValidator(InRange(0, 2**20))] = 0
    """Optimiser steps that the copy may be behind; 0 renews it before every step."""
    gpu_memory: Annotated[Real, AfterValidator(InRange(0, 1, open_low=True))] = 0.3
    """Share of the GPU's memory for weights and caches of the engine, which it has beside the training."""
    start_seconds: Seconds = 600.0
    """Longest wait for the engine to start."""
    total_seconds: Seconds = 1800.0
    """Time for all responses of a step; then the run is saved and ends."""


_Microseconds = Annotated[Real, AfterValidator(InRange(0))]


class SizeCosts(Section):
    """By the numbers of parameters: equal runs choose equal blocks, on every machine and however busy it is."""

    kind: Literal["sizes"] = "sizes"
    """What is gone by."""


class MeasuredCosts(Section):
    """Measured once, in some seconds, when a run begins, and recorded in its config.yaml."""

    kind: Literal["measured"] = "measured"
    """What is gone by."""
    microseconds: dict[Text, tuple[_Microseconds, _Microseconds]] = Field(default_factory=dict)
    """Of a forward, and of each of its tokens, by model: student, and teacher or teacher.by.VALUE. Left out, they are
    measured; those that another run recorded give blocks as it chose them."""

    def __str__(self) -> str:
        """In words."""
        lines = self.microseconds.items()
        return ", ".join(f"{model} {forward:g} us + {token:g} us a token" for model, (forward, token) in lines)


CostsConfig = Annotated[SizeCosts | MeasuredCosts, Field(discriminator="kind"), BeforeValidator(kind_from_text)]


class SamplingConfig(Section):
    """How responses are sampled. Idle under the policy data_set."""

    max_new_tokens: Count = 128
    """Longest response."""
    slots: Count = 64
    """Rows sampled at once."""
    responses_per_prompt: Annotated[Integer, AfterValidator(InRange(1, 2**24 - 1))] = 1
    """Responses sampled for each prompt."""
    student: StudentWarpConfig = StudentWarpConfig()
    """Warp of the student's drafts."""
    teacher: TeacherWarpConfig = TeacherWarpConfig()
    """Warp of the teacher's replacements."""
    stop_strings: tuple[Annotated[Text, Field(min_length=1)], ...] = ()
    """Texts that end a response, besides the end tokens."""
    rollouts: RolloutsConfig | None = None
    """An engine for the responses that one model writes alone; null for skd's own sampler."""
    evidence: Literal["keep", "recompute"] = "keep"
    """keep the teacher's hidden states of the judging for the loss, or recompute them (slower, less memory)."""
    prompt_cache_mb: Annotated[Integer, AfterValidator(InRange(0))] = 0
    """Megabytes of memory in which a frozen teacher keeps the prompts it has read, over all epochs; 0 keeps none."""
    packed_mb: Annotated[Integer, AfterValidator(InRange(0))] = 4000
    """Megabytes for copies of the weights in the layout that a CPU multiplies fastest, while responses are written."""
    costs: CostsConfig = SizeCosts()
    """What drafts and looks cost, by which a block that is null follows the acceptance; a plain name is its kind."""
    compile: Flag = False
    """Compile the sampler's forwards, with CUDA graphs on CUDA; off until someone has run it there."""


_Beta = Annotated[Real, AfterValidator(InRange(0, 1, open_high=True))]


class TrainConfig(Section):
    """The loop and the optimiser (AdamW)."""

    seed: Seed | None = 0
    """Seed of everything random in the run; null draws one, which the run records and keeps when it is resumed."""
    lr: Annotated[Real, AfterValidator(InRange(0, 1, open_low=True))] = 1e-5
    """Highest learning rate."""
    batch_size: Count = 8
    """Prompts per optimiser step."""
    max_steps: Count | None = None
    """Optimiser steps; null leaves it to epochs."""
    epochs: Annotated[Real, AfterValidator(InRange(0, open_low=True))] = 3.0
    """Passes over the training rows, when max_steps is null."""
    warmup: Share = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Course of the learning rate after the warm-up."""
    weight_decay: Annotated[Real, AfterValidator(InRange(0))] = 0.0
    """Decoupled weight decay."""
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: Annotated[Real, AfterValidator(InRange(0, 1, open_low=True))] = 1e-8
    """Added to the denominator of the update."""
    clip_norm: Annotated[Real, AfterValidator(InRange(0, open_low=True))] | None = 1.0
    """Largest gradient norm; null for no clipping."""
    micro_batch_tokens: Count = 8192
    """Padded tokens per forward and backward; lower it when memory runs out."""
    gradient_checkpointing: Flag = False
    """Less memory for about a third more time."""
    sharding: Literal["none", "fsdp2", "zero2", "zero3"] = "none"
    """Cut teachers and training into shards, one per process: by torch (fsdp2) or by DeepSpeed (zero3; zero2 leaves the
    student's weights whole)."""
    gather: Literal["step", "layer"] = "step"
    """Under a sharding, gather models that sample, judge and validate whole, once a step; or, where no device can hold
    them, a layer at a time in every forward."""
    offload: Flag = False
    """Keep what zero2 and zero3 cut in the CPU's memory: gradients and moments, under zero3 the weights too."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the training forward; master weights are float32 in all. fp16 scales the loss as it goes."""
    validate_every: Count | None = 100
    """Steps between validations; null for the last step only."""
    validation_prompts: Count = 64
    """Validation rows used."""
    save_every: Count | None = 100
    """Steps between checkpoints; null for the last step only."""
    keep: Count = 2
    """Newest checkpoints kept, besides the best one."""
    samples_every: Count | None = 50
    """Steps between printed samples; null for none."""
    rank_timeout_seconds: Annotated[Real, AfterValidator(InRange(1))] = 1800.0
    """Of several processes, how long one that others wait for may make no progress (a round, a micro-batch, a file)."""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Programs that get a copy of the numbers; one that fails stops no run."""

    @property
    def known_seed(self) -> int:
        """The seed; where the file leaves it open, a run draws one before anything is random."""
        assert self.seed is not None, "no seed was drawn"
        return self.seed

    def num_steps(self, num_prompts: int) -> int:
        """Optimiser steps of a run: max_steps, or the epochs rounded up to whole steps."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, -int(-self.epochs * num_prompts // self.batch_size))


def _method_from_alias(value: Any) -> Any:
    return ALIASES.get(value, value) if isinstance(value, str) else value


def _known_format(value: int) -> int:
    if value != FORMAT:
        raise PydanticCustomError("unknown_format", "format {expected}", {"expected": FORMAT})
    return value


class RunConfig(Section):
    """One training run: which models and data, which method, and how it is trained."""

    format: Annotated[Integer, AfterValidator(_known_format)] = FORMAT
    """Version of this file's format."""
    method: Annotated[MethodName, BeforeValidator(_method_from_alias)] = "skd"
    """A bundle of policy, objective and sampling settings; what is written below goes first."""
    teacher: TeacherConfig | None = None
    """The frozen model that is learned from, or how it is made of the student; null for sft."""
    student: StudentModel
    """The model that is trained."""
    data: DataConfig
    """Prompts and references."""
    policy: PolicyConfig = InterleavedPolicy()
    """Who writes the responses; keys left out are the method's."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What is learned from them; keys left out are the method's."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are sampled."""
    train: TrainConfig = TrainConfig()
    """The loop and the optimiser."""
    output: PathText = "runs/skd"
    """Directory of the run."""
    hub: HubConfig | None = None
    """Where the finished student is pushed; null for nowhere. A plain text is its repo."""

    @model_validator(mode="before")
    @classmethod
    def _with_method(cls, values: Any) -> Any:
        return with_method(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if found := contradictions(self.given()):
            raise PydanticCustomError("contradictions", "{text}", {"text": "; ".join(map(str, found))})
        return self

    def given(self) -> dict[str, Any]:
        """As plain data, without the sections that are the method's own, so that a message can name the method."""
        written, own = self.model_dump(mode="json", exclude_unset=True), METHODS[self.method].sections
        given = {key for key, value in written.items() if value != own.get(key)}
        return self.model_dump(mode="json", include=given)

    @property
    def models(self) -> Mapping[str, ModelConfig]:
        """The models that a run opens, by their key; a teacher made of the student is none of them."""
        teachers = teachers_of(self.teacher).items()
        return {"student": self.student, **{key: one for key, one in teachers if isinstance(one, TeacherModel)}}

    def with_model(self, key: str, model: ModelConfig) -> RunConfig:
        """The same with another model at one of the keys of ``models``."""
        if not isinstance(self.teacher, RoutedTeacher) or key == "student":
            return self.model_copy(update={key: model})
        by = {**self.teacher.by, key.removeprefix("teacher.by."): model}
        return self.model_copy(update={"teacher": self.teacher.model_copy(update={"by": by})})

    def with_costs(self, microseconds: Mapping[str, tuple[float, float]]) -> RunConfig:
        """The same with what its models' forwards were measured to cost."""
        costs = MeasuredCosts(microseconds=dict(microseconds))
        return self.model_copy(update={"sampling": self.sampling.model_copy(update={"costs": costs})})

    @property
    def writers(self) -> frozenset[str]:
        """The kinds of the policies that write responses: several in a mixture or in stages."""
        return frozenset(writers(self.policy))

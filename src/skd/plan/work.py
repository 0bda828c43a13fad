"""What one optimiser step has to do, from a run config, and the rounds of its sampling played with coins."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skd.check.prompts import longest_responses
from skd.config import RunConfig, TeacherModel, teachers_of
from skd.plan.shape import Shape
from skd.sampling.pace import Costs, Pace
from skd.sampling.packed import worth_packing
from skd.types import Prompts

__all__ = ["Rounds", "Work", "played"]

_FULL_NAMES = {"fp32": "float32", "bf16": "bfloat16", "float32": "float32", "bfloat16": "bfloat16"}
_ALONE_BLOCK = 3
"""As the sampler where one model writes alone."""


@dataclass(frozen=True)
class Work:
    """One step of one process."""

    student: Shape
    teacher: Shape | None
    """None where no teacher is needed."""
    prompts: Sequence[int]
    """Tokens of each prompt, once for each response."""
    responses: Sequence[int]
    """Tokens of each response."""
    writer: str
    """"interleaved", "student", "teacher" or "data_set"."""
    alpha: float
    """Share of the drafts that are kept."""
    block: int | None
    """Tokens drafted between two looks; None follows the acceptance."""
    slots: int
    student_dtype: str
    teacher_dtype: str
    precision: str
    """Of the arithmetic of training."""
    micro_batch_tokens: int
    checkpointing: bool
    recompute: bool
    """The teacher reads finished responses once more, although it judged them."""
    prompts_kept: bool = False
    """The teacher has read the prompts in an earlier epoch."""
    packed_mb: int = 0
    """What packed weights may take on a CPU."""
    copies_kept: bool = False
    """A frozen teacher's were packed in an earlier step."""
    rescored: bool = False
    """The judge reads all that stands before a block anew, as a vLLM server does."""
    device: str = "cpu"
    """Whose pace the block follows."""
    costs: Costs | None = None
    """Which it follows in place of the models' sizes: those that a run measured."""

    @staticmethod
    def of(
        config: RunConfig,
        models: Mapping[str, Shape],
        prompts: Prompts,
        alpha: float,
        device: str,
        response_tokens: float | None = None,
    ) -> Work:
        """A step of ``config``: rows of middling length, evenly taken from the prompts.

        models: shapes by their key in the config; a teacher made of the student has the student's, and of several the
            largest counts.
        response_tokens: mean length of a response; by default that of the references, or the cap where there are none.
        """
        count = config.train.batch_size
        rows = sorted(range(len(prompts)), key=lambda row: len(prompts.ids[row]))
        rows = [rows[int((i + 0.5) * len(rows) / count)] for i in range(count)]
        repeated = 1 if config.writers == {"data_set"} else config.sampling.responses_per_prompt
        lengths = _lengths(config, prompts, response_tokens)
        key = max(
            (key for key in models if key != "student"), key=lambda key: models[key].num_weights, default="student"
        )
        teacher = teachers_of(config.teacher).get(key)
        return Work(
            student=models["student"],
            teacher=None if config.teacher is None else models[key],
            prompts=[len(prompts.ids[row]) for row in rows for _ in range(repeated)],
            responses=[lengths[row] for row in rows for _ in range(repeated)],
            writer=_writer(config),
            alpha=alpha,
            block=getattr(config.policy, "block", None),
            slots=config.sampling.slots,
            student_dtype=_FULL_NAMES[config.student.dtype],
            teacher_dtype=_FULL_NAMES[teacher.dtype] if isinstance(teacher, TeacherModel) else "float32",
            precision=_FULL_NAMES[config.train.precision],
            micro_batch_tokens=config.train.micro_batch_tokens,
            checkpointing=config.train.gradient_checkpointing,
            recompute=config.sampling.evidence == "recompute",
            prompts_kept=config.sampling.prompt_cache_mb > 0,
            packed_mb=config.sampling.packed_mb,
            copies_kept=isinstance(teacher, TeacherModel) and config.train.sharding == "none",
            device=device,
            costs=_costs(config, key),
        )

    @property
    def packs(self) -> bool:
        """Whether the weights are packed for a rollout: all of them, or none is counted."""
        models = [(self.student, self.student_dtype), (self.teacher, self.teacher_dtype)]
        there = [(shape, dtype) for shape, dtype in models if shape is not None]
        fits = sum(shape.multiplied(dtype) for shape, dtype in there) <= self.packed_mb * 10**6
        return self.device == "cpu" and fits and worth_packing(shape.num_weights for shape, _ in there)

    @property
    def tokens(self) -> int:
        """Response tokens of the step."""
        return sum(self.responses)


def _costs(config: RunConfig, teacher: str) -> Costs | None:
    known = getattr(config.sampling.costs, "microseconds", {})
    return Costs(known["student"], known[teacher]) if teacher in known else None


def _writer(config: RunConfig) -> str:
    """The dearest of those that write: a mixture costs at most this."""
    order = ("interleaved", "teacher", "student", "data_set")
    return min(config.writers, key=order.index)


def _lengths(config: RunConfig, prompts: Prompts, mean: float | None) -> list[int]:
    longest = longest_responses(config, prompts)
    written = [len(ids) for ids in prompts.references] if prompts.references is not None else longest
    lengths = [max(1, min(length, most)) for length, most in zip(written, longest, strict=True)]
    scale = 1.0 if mean is None else mean * len(lengths) / sum(lengths)
    return [max(1, round(length * scale)) for length in lengths]


Rounds = Counter[tuple[int, int]]
"""(rows, block) -> how often such a round is."""


def played(work: Work, seed: int = 0) -> tuple[Rounds, int]:
    """The rounds of the sampler, each draft kept by a coin of ``work.alpha``, and how often slots are filled.

    Rows, refilling, and the block of ``skd.sampling.pace`` are the sampler's own rules, so that raggedness and the tail
    of a batch are counted.
    """
    coins, rounds, fills = random.Random(seed), Rounds(), 0
    waiting = sorted(zip(work.prompts, work.responses, strict=True), reverse=True)
    left = [length for _, length in waiting][::-1]
    held: list[int] = []
    alone = work.writer != "interleaved"
    teacher_weights = 0 if work.teacher is None else work.teacher.num_weights
    costs = work.costs or Costs.by_size(work.student.num_weights, teacher_weights, work.device)
    pace = Pace(costs, _ALONE_BLOCK if alone else work.block)
    while left or held:
        if left and len(held) <= work.slots * 3 // 4:
            fills += 1
            while left and len(held) < work.slots:
                held.append(left.pop())
        block = min(pace.block(len(held)), max(held))
        rounds[len(held), block] += 1
        gained = [(block, 0) if alone else _gain(coins, work.alpha, block) for _ in held]
        gained = [(min(count, rest), replaced) for (count, replaced), rest in zip(gained, held, strict=True)]
        pace.saw([count for count, _ in gained], [replaced for _, replaced in gained])
        held = [rest - count for rest, (count, _) in zip(held, gained, strict=True) if rest > count]
    return rounds, fills


def _gain(coins: random.Random, alpha: float, block: int) -> tuple[int, int]:
    """Tokens committed of a block, and whether the last of them is the teacher's."""
    for kept in range(block):
        if coins.random() >= alpha:
            return kept + 1, 1
    return block, 0

"""What a gate is: the rule by which a drafted token is kept or replaced, and by what.

A gate is a small frozen value with one method. It sees a whole drafted block at once and judges every position as if
all earlier ones had been kept; the sampler uses the verdict up to the first rejection and discards the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from skd.sampling.warp import Warp, draw
from skd.schedule import Number, value_at

__all__ = ["Drafted", "Gate", "Verdict", "teacher_draw"]


class _once:
    """As ``functools.cached_property``, whose lock (before Python 3.12) torch.compile cannot look into."""

    def __init__(self, make: Callable[[Any], Tensor]) -> None:
        self.make, self.__doc__ = make, make.__doc__

    def __get__(self, drafted: Any, owner: type) -> Tensor:
        made = drafted.__dict__
        if self.make.__name__ not in made:
            made[self.make.__name__] = self.make(drafted)
        value: Tensor = made[self.make.__name__]
        return value


@dataclass(frozen=True)
class Drafted:
    """A drafted block as a gate sees it. Positions and steps count from 0."""

    ids_BG: Tensor
    """int64: the drafted tokens; the token that is judged here is the token that is kept."""
    teacher_logits_BGV: Tensor
    """float32 raw logits of the teacher at each drafted token."""
    teacher_warp: Warp
    position_BG: Tensor
    """int64: index of each drafted token in its response."""
    progress: float
    """Share of the training done, in [0, 1], for schedules."""
    accept_noise_BG: Tensor
    """float64 uniforms for the gate's own coin."""
    replace_noise_BG: Tensor
    """float64 uniforms for the replacement."""
    state_BS: Tensor
    """float32 row state after the last committed token; zeros at the start of a response."""
    student_logits_BGV: Tensor | None = None
    """float32 raw logits of the student that drafted; only for a gate with ``needs_student``."""
    student_warp: Warp = Warp()  # noqa: RUF009 - a frozen value

    def value(self, number: Number) -> float | Tensor:
        """A number's value here: a float, or float64 [B, G]."""
        return value_at(number, self.progress, self.position_BG)

    @_once
    def teacher_logp_BGV(self) -> Tensor:
        """Raw teacher log-probs, float32."""
        return torch.log_softmax(self.teacher_logits_BGV, dim=-1)

    @_once
    def teacher_drawn_logp_BGV(self) -> Tensor:
        """Log-probs that a teacher's token would be drawn from, after its warp."""
        return self.teacher_warp.log_probs(self.teacher_logits_BGV)

    @_once
    def student_drawn_logp_BGV(self) -> Tensor:
        """The distribution each token was drafted from; only for a gate with ``needs_student``."""
        assert self.student_logits_BGV is not None
        return self.student_warp.log_probs(self.student_logits_BGV)

    def written(self, values_BGV: Tensor) -> Tensor:
        """The entries [B, G] of ``values_BGV`` at the drafted tokens."""
        return values_BGV.gather(-1, self.ids_BG.unsqueeze(-1)).squeeze(-1)

    def at(self, index_B: Tensor) -> Drafted:
        """The same view of one position per row (G = 1)."""

        def pick(values: Tensor) -> Tensor:
            index = index_B.view(-1, *[1] * (values.dim() - 1)).expand(-1, 1, *values.shape[2:])
            return values.gather(1, index)

        student = self.student_logits_BGV
        return replace(
            self,
            ids_BG=pick(self.ids_BG),
            teacher_logits_BGV=pick(self.teacher_logits_BGV),
            position_BG=pick(self.position_BG),
            accept_noise_BG=pick(self.accept_noise_BG),
            replace_noise_BG=pick(self.replace_noise_BG),
            student_logits_BGV=None if student is None else pick(student),
        )


def teacher_draw(rejected: Drafted) -> Tensor:
    """The usual replacement: a draw from the teacher's warped distribution. Returns ids [B, 1]."""
    return draw(rejected.teacher_drawn_logp_BGV, rejected.replace_noise_BG)


@dataclass(frozen=True)
class Verdict:
    """What a gate says of a drafted block."""

    keep_BG: Tensor
    """bool: whether each token would be kept, given that all before it were."""
    replacement: Callable[[Drafted], Tensor] = teacher_draw
    """Writes the ids [B, 1] that stand in for the first rejected token, from the view of that one position."""
    state_BGS: Tensor | None = None
    """Row state after each position, once that token (or its replacement) is committed; None leaves it unchanged."""


class Gate(Protocol):
    """See the module docstring. The class attributes tell the sampler what it may leave out."""

    drafts: ClassVar[bool]
    """False: the student never writes, so nothing is drafted."""
    judges: ClassVar[bool]
    """False: every draft is kept, so the teacher looks only once, at the finished response."""
    needs_student: ClassVar[bool]
    """True: the logits the drafts came from are kept for the verdict."""
    state_size: ClassVar[int]
    """Floats of state per row."""

    def judge(self, drafted: Drafted) -> Verdict:
        """Judge every drafted token of every row."""
        ...

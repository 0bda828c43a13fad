"""Gates: the rule by which a drafted token is kept or replaced, and by what.

A gate is a small frozen value with one method. It sees a whole drafted block at once and judges every position as if
all earlier ones had been kept; the sampler uses the verdict up to the first rejection and discards the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.sampling.warp import Warp, draw, kth_largest, nucleus_threshold

__all__ = ["AcceptAll", "AcceptNone", "Drafted", "Gate", "TopK", "TopP", "Verdict", "teacher_draw"]


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
    step: int
    """Optimiser step of the training run, for schedules."""
    accept_noise_BG: Tensor
    """float64 uniforms for the gate's own coin."""
    replace_noise_BG: Tensor
    """float64 uniforms for the replacement."""
    state_BS: Tensor
    """float32 row state after the last committed token; zeros at the start of a response."""
    student_drawn_logp_BGV: Tensor | None = None
    """The distribution each token was drafted from; only for a gate with ``needs_student``."""

    @cached_property
    def teacher_logp_BGV(self) -> Tensor:
        """Raw teacher log-probs, float32."""
        return torch.log_softmax(self.teacher_logits_BGV, dim=-1)

    @cached_property
    def teacher_drawn_logp_BGV(self) -> Tensor:
        """Log-probs that a teacher's token would be drawn from, after its warp."""
        return self.teacher_warp.log_probs(self.teacher_logits_BGV)

    def at(self, index_B: Tensor) -> Drafted:
        """The same view of one position per row (G = 1)."""

        def pick(values: Tensor) -> Tensor:
            index = index_B.view(-1, *[1] * (values.dim() - 1)).expand(-1, 1, *values.shape[2:])
            return values.gather(1, index)

        student = self.student_drawn_logp_BGV
        return replace(
            self,
            ids_BG=pick(self.ids_BG),
            teacher_logits_BGV=pick(self.teacher_logits_BGV),
            position_BG=pick(self.position_BG),
            accept_noise_BG=pick(self.accept_noise_BG),
            replace_noise_BG=pick(self.replace_noise_BG),
            student_drawn_logp_BGV=None if student is None else pick(student),
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
    """True: the distributions the drafts came from are kept for the verdict."""
    state_size: ClassVar[int]
    """Floats of state per row."""

    def judge(self, drafted: Drafted) -> Verdict:
        """Judge every drafted token of every row."""
        ...


class _Judging:
    drafts: ClassVar[bool] = True
    judges: ClassVar[bool] = True
    needs_student: ClassVar[bool] = False
    state_size: ClassVar[int] = 0


@dataclass(frozen=True)
class TopK(_Judging):
    """Keep a token that is among the teacher's ``k`` most probable raw ones (SKD, Xu et al. 2025, algorithm 1).

    Ids that tie with the k-th count as among them. ``k`` of the vocabulary size or more keeps everything. Raises
    ConfigError for a ``k`` below 1.
    """

    k: int = 25

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(Problem("SKD-C07", "k", f"is {self.k}; it must be 1 or more", "25 is the paper's"))

    def judge(self, drafted: Drafted) -> Verdict:
        """Compare each draft's raw teacher logit with the k-th largest one."""
        logits = drafted.teacher_logits_BGV
        chosen = logits.gather(-1, drafted.ids_BG.unsqueeze(-1))
        return Verdict((chosen >= kth_largest(logits, self.k)).squeeze(-1))


@dataclass(frozen=True)
class TopP(_Judging):
    """Keep a token inside the smallest set of the teacher's most probable raw tokens that holds the mass ``p``.

    Raises ConfigError for a ``p`` outside (0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        if not 0.0 < self.p <= 1.0:
            raise ConfigError(Problem("SKD-C07", "p", f"is {self.p}; it must be in (0, 1]", "give a share"))

    def judge(self, drafted: Drafted) -> Verdict:
        """Compare each draft's raw teacher log-prob with that of the set's last member."""
        logp = drafted.teacher_logp_BGV
        chosen = logp.gather(-1, drafted.ids_BG.unsqueeze(-1))
        return Verdict((chosen >= nucleus_threshold(logp, self.p)).squeeze(-1))


@dataclass(frozen=True)
class AcceptAll(_Judging):
    """Keep every token: the student writes alone (on-policy)."""

    judges: ClassVar[bool] = False

    def judge(self, drafted: Drafted) -> Verdict:
        """Everything is kept."""
        return Verdict(torch.ones_like(drafted.ids_BG, dtype=torch.bool))


@dataclass(frozen=True)
class AcceptNone(_Judging):
    """Keep no token: the teacher writes alone."""

    drafts: ClassVar[bool] = False

    def judge(self, drafted: Drafted) -> Verdict:
        """Nothing is kept."""
        return Verdict(torch.zeros_like(drafted.ids_BG, dtype=torch.bool))

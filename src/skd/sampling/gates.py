"""The gates: which drafted tokens are kept, and by what a rejected one is replaced. See ``skd.sampling.gate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.sampling.gate import Drafted, Verdict
from skd.sampling.warp import draw, kth_largest, nucleus_threshold
from skd.schedule import Number, ends

__all__ = ["AcceptAll", "AcceptNone", "Interpolated", "MinProb", "SwitchOnce", "TopK", "TopP"]


class _Judging:
    drafts: ClassVar[bool] = True
    judges: ClassVar[bool] = True
    needs_student: ClassVar[bool] = False
    state_size: ClassVar[int] = 0


@dataclass(frozen=True)
class TopK(_Judging):
    """Keep a token that is among the teacher's ``k`` most probable raw ones (SKD, Xu et al. 2025, algorithm 1).

    Ids that tie with the k-th count as among them. ``k`` of the vocabulary size or more keeps everything. A schedule
    along the response is the paper's adaptive K; its values are rounded. Raises ConfigError for a ``k`` below 1.
    """

    k: Number = 25

    def __post_init__(self) -> None:
        for k in ends(self.k):
            if k < 1:
                raise ConfigError(Problem("SKD-C07", "k", f"is {k}; it must be 1 or more", "25 is the paper's"))

    def judge(self, drafted: Drafted) -> Verdict:
        """Compare each draft's raw teacher logit with the k-th largest one."""
        logits_BGV, k = drafted.teacher_logits_BGV, drafted.value(self.k)
        if not isinstance(k, Tensor):
            return Verdict(drafted.written(logits_BGV) >= kth_largest(logits_BGV, round(k)).squeeze(-1))
        largest_BGK = logits_BGV.topk(min(round(max(ends(self.k))), logits_BGV.shape[-1]), dim=-1).values
        index_BG1 = (k.round().long() - 1).clamp(0, largest_BGK.shape[-1] - 1).unsqueeze(-1)
        return Verdict(drafted.written(logits_BGV) >= largest_BGK.gather(-1, index_BG1).squeeze(-1))


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
        logp_BGV = drafted.teacher_logp_BGV
        return Verdict(drafted.written(logp_BGV) >= nucleus_threshold(logp_BGV, self.p).squeeze(-1))


@dataclass(frozen=True)
class MinProb(_Judging):
    """Keep a token to which the raw teacher gives at least the probability ``floor`` (CA-OPD, arXiv 2609.02401).

    CA-OPD replaces by the teacher's most probable token: a teacher's warp of temperature 0. Its floor falls over
    training from 0.5 to 0.25. Raises ConfigError for a ``floor`` outside [0, 1].
    """

    floor: Number

    def __post_init__(self) -> None:
        for floor in ends(self.floor):
            if not 0.0 <= floor <= 1.0:
                found = f"is {floor}; it must be in [0, 1]"
                raise ConfigError(Problem("SKD-C07", "floor", found, "give a probability, such as 0.3"))

    def judge(self, drafted: Drafted) -> Verdict:
        """Compare each draft's raw teacher probability with the floor."""
        return Verdict(drafted.written(drafted.teacher_logp_BGV).exp() >= drafted.value(self.floor))


@dataclass(frozen=True)
class Interpolated(_Judging):
    """Write tokens distributed exactly as (1 - g) student + g teacher, both as drawn from (IPD, arXiv 2609.37170).

    Speculative sampling (Leviathan et al., 2023, arXiv 2211.17192) with that mixture as its target: keep y with
    probability min(1, 1 - g + g T(y) / S(y)), otherwise draw from the positive part of T - S. ``g`` = 1 is exact
    sampling from the teacher. Raises ConfigError for a ``g`` outside [0, 1].
    """

    g: Number = 0.1
    needs_student: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for g in ends(self.g):
            if not 0.0 <= g <= 1.0:
                raise ConfigError(Problem("SKD-C07", "g", f"is {g}; it must be in [0, 1]", "IPD takes about 0.1"))

    def judge(self, drafted: Drafted) -> Verdict:
        """Toss the gate's coin for each draft."""
        teacher_BG = drafted.written(drafted.teacher_drawn_logp_BGV)
        ratio_BG = (teacher_BG - drafted.written(drafted.student_drawn_logp_BGV)).double().exp()
        g = drafted.value(self.g)
        return Verdict(drafted.accept_noise_BG < 1.0 - g + g * ratio_BG, replacement=_residual_draw)


def _residual_draw(rejected: Drafted) -> Tensor:
    teacher_BGV, student_BGV = rejected.teacher_drawn_logp_BGV.exp(), rejected.student_drawn_logp_BGV.exp()
    residual_BGV = (teacher_BGV - student_BGV).clamp_min(0.0)
    mass_BG1 = residual_BGV.sum(-1, keepdim=True)
    # Between equal distributions only rounding rejects, and leaves nothing to draw from.
    return draw(torch.where(mass_BG1 > 0.0, residual_BGV / mass_BG1, teacher_BGV).log(), rejected.replace_noise_BG)


@dataclass(frozen=True)
class SwitchOnce(_Judging):
    """The student writes until the divergence of one token exceeds ``factor`` x its mean over those before; from that
    token on the teacher writes (AdaSwitch, Peng et al., 2025, arXiv 2510.07842).

    The divergence is KL(T || S) of the raw distributions. State of a row: tokens judged, sum of their divergences, and
    1 once switched. Raises ConfigError for a ``factor`` that is not above 0.
    """

    factor: float = 3.0
    needs_student: ClassVar[bool] = True
    state_size: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if not self.factor > 0.0:
            found = f"is {self.factor}; it must be above 0"
            raise ConfigError(Problem("SKD-C07", "factor", found, "a larger one switches later"))

    def judge(self, drafted: Drafted) -> Verdict:
        """Walk along the block with the row's running mean."""
        assert drafted.student_logits_BGV is not None
        teacher_BGV, student_BGV = drafted.teacher_logp_BGV, torch.log_softmax(drafted.student_logits_BGV, dim=-1)
        divergence_BG = (teacher_BGV.exp() * (teacher_BGV - student_BGV)).sum(-1)
        judged_B, total_B, switched_B = drafted.state_BS.unbind(-1)
        keep, states = [], []
        for divergence_B in divergence_BG.unbind(-1):
            over_B = (judged_B > 0) & (divergence_B > self.factor * total_B / judged_B.clamp_min(1.0))
            counts_B = (switched_B == 0).float()
            switched_B = torch.maximum(switched_B, over_B.float())
            judged_B, total_B = judged_B + counts_B, total_B + counts_B * divergence_B
            keep.append(switched_B == 0)
            states.append(torch.stack([judged_B, total_B, switched_B], dim=-1))
        return Verdict(torch.stack(keep, dim=1), state_BGS=torch.stack(states, dim=1))


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

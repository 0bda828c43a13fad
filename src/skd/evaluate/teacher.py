"""How close a student is to its teacher: divergence, agreement, calibration on references."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skd.evaluate.scores import Score, sums_score
from skd.models.score import score
from skd.sampling.checks import require_prompts
from skd.types import Prompts

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["fidelity"]

BINS = 15
"""Bins of the calibration error, of equal width."""
ITEMS_AT_ONCE = 64


@torch.no_grad()
def fidelity(pair: Pair, prompts: Prompts) -> dict[str, Score]:
    """Student against teacher on the references of prompts, token by token, unwarped.

    forward_kl: mean KL(teacher || student) in nats. top1_agreement: share of tokens whose most probable next token is
    the same. calibration_error: of the student's most probable token against the reference (Guo et al., 2017,
    arXiv 1706.04599). Intervals redraw items.

    Raises DataError when a prompt and its reference do not fit the models' context.
    """
    assert prompts.references is not None
    require_prompts(prompts, [len(ids) for ids in prompts.references], pair.context, pair.vocab_size)
    rows: list[np.ndarray] = []
    for start in range(0, len(prompts), ITEMS_AT_ONCE):
        rows += _statistics(pair, prompts.select(range(start, min(start + ITEMS_AT_ONCE, len(prompts)))))
    return {
        "forward_kl": sums_score(rows, lambda sums: sums[1] / sums[0], is_share=False),
        "top1_agreement": sums_score(rows, lambda sums: sums[2] / sums[0]),
        "calibration_error": sums_score(rows, lambda sums: _calibration(sums[3:].reshape(2, BINS)) / sums[0]),
    }


def _statistics(pair: Pair, prompts: Prompts) -> list[np.ndarray]:
    """Per item [3 + 2 BINS]: tokens, sum of KL, tokens agreed on; for every bin the confidence, then what was right."""
    assert prompts.references is not None
    ids = [torch.tensor(list(row), dtype=torch.int64) for row in prompts.ids]
    references = [torch.tensor(list(row), dtype=torch.int64) for row in prompts.references]
    hidden = [score(model, ids, references) for model in (pair.student, pair.required_teacher)]
    heads = pair.student_head(), pair.teacher_head()
    return [
        _item(heads[0].logits(student_LD).log_softmax(-1), heads[1].logits(teacher_LD).log_softmax(-1), target_L)
        for student_LD, teacher_LD, target_L in zip(*hidden, references, strict=True)
    ]


def _item(student_logp_LV: Tensor, teacher_logp_LV: Tensor, target_L: Tensor) -> np.ndarray:
    teacher_LV = teacher_logp_LV.exp()
    # A token that the teacher never writes adds nothing, whatever the student gives it.
    kl_LV = torch.where(teacher_LV > 0, teacher_LV * (teacher_logp_LV - student_logp_LV), 0.0)
    confidence_L, choice_L = student_logp_LV.exp().max(-1)
    agreed = (choice_L == teacher_logp_LV.argmax(-1)).sum()
    right_L = (choice_L == target_L.to(choice_L.device)).double()
    bin_L = (confidence_L * BINS).long().clamp_max(BINS - 1)
    sums_2K = torch.zeros(2, BINS, dtype=torch.float64, device=choice_L.device)
    sums_2K[0].index_add_(0, bin_L, confidence_L.double())
    sums_2K[1].index_add_(0, bin_L, right_L)
    return np.array([len(target_L), float(kl_LV.double().sum()), float(agreed), *sums_2K.flatten().tolist()])


def _calibration(sums_2K: np.ndarray) -> float:
    """Sum over bins of tokens x |mean confidence - accuracy|."""
    return float(np.abs(sums_2K[0] - sums_2K[1]).sum())

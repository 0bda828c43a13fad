"""Tokens as a loss sees them, and a teacher of whom little is known, made of log-probs alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from skd.objectives import ResponseTokens, Tokens, TopLogProbs
from skd.types import STUDENT

__all__ = ["response", "tokens", "top_log_probs"]


def response(ids_N: Tensor, author: int | Tensor = STUDENT, **kw: Any) -> ResponseTokens:
    """Tokens at positions 0, 1, ... all by one author unless said."""
    authors_N = torch.as_tensor(author, dtype=torch.uint8).expand(len(ids_N))
    return ResponseTokens(ids_N, authors_N, torch.arange(len(ids_N)), **kw)


def tokens(student_logp_NV: Tensor, teacher_logp_NV: Tensor | None, ids_N: Tensor, **kw: Any) -> Tokens:
    """No ids at all stand for losses that do not look at them: the tokens are then all of id 0."""
    if len(ids_N) == 0:
        ids_N = torch.zeros(len(student_logp_NV), dtype=torch.long)

    def at(logp_NV: Tensor) -> Tensor:
        return logp_NV.gather(-1, ids_N.unsqueeze(-1)).squeeze(-1)

    written_N = None if teacher_logp_NV is None else at(teacher_logp_NV)
    return Tokens(response(ids_N), student_logp_NV, at(student_logp_NV), teacher_logp_NV, written_N, **kw)


def top_log_probs(teacher_logp_NV: Tensor, k: int, ids_N: Tensor) -> TopLogProbs:
    """What a teacher's ``k`` most probable ids say of it."""
    top = teacher_logp_NV.topk(k, dim=-1)
    # Not 1 - sum: of float32 log-probs that is a rounding error where the known ids have nearly all the mass.
    others_N1 = teacher_logp_NV.scatter(-1, top.indices, -math.inf).logsumexp(-1, keepdim=True)
    logp_NB = torch.cat([top.values, others_N1], -1)
    return TopLogProbs(top.indices, logp_NB, teacher_logp_NV.gather(-1, ids_N.unsqueeze(-1)).squeeze(-1))

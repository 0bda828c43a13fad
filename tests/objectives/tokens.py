"""Tokens as a loss sees them, made of log-probs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skd.objectives import ResponseTokens, Tokens
from skd.types import STUDENT

__all__ = ["response", "tokens"]


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

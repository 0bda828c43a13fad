"""What is known of the teacher at N response tokens, in two forms: its hidden states, or its most probable ids."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.objectives.tokens import log_probs
from skd.types import Head, TopEvidence

__all__ = ["HiddenStates", "TeacherView", "TopLogProbs", "fewer_ids", "prepared_head", "top_evidence"]


_CHUNK = 256
"""Tokens whose log-probs over the whole vocabulary are in memory at once."""


class TeacherView(Protocol):
    """The teacher's side of a loss, for any slice of the tokens."""

    def compare(
        self, student_logp_CV: Tensor, written_C: Tensor, temperature: float, rows: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(student, teacher, teacher's log-prob of the token written): log-probs [C, V'], [C, V'] and [C].

        V' is the vocabulary or a partition of it, the same for both.
        """
        ...

    def among_top(self, written_C: Tensor, k: int, rows: slice) -> Tensor:
        """bool [C]: whether the token written is among the teacher's ``k`` most probable."""
        ...

    def prepared(self, chunk: int) -> TeacherView:
        """The same for many ``read``s of at most ``chunk`` tokens: cut off from the graph, and cast for autocast once.

        Each read may take the memory of the one before it.
        """
        ...

    def read(self, rows: slice) -> TeacherView:
        """The same for these tokens alone, with all that is dear to compute done."""
        ...

    def __len__(self) -> int:
        """N."""
        ...


@dataclass(frozen=True)
class HiddenStates:
    """The last hidden states that predict the tokens: everything the teacher knows, in D numbers each."""

    hidden_ND: Tensor
    head: Head
    space_CV: Tensor | None = field(default=None, repr=False)
    """Where ``read`` puts the product with the head."""
    product_NV: Tensor | None = field(default=None, repr=False)
    """The product with the head, once it was read."""

    def __len__(self) -> int:
        return len(self.hidden_ND)

    def prepared(self, chunk: int) -> HiddenStates:
        """With the head in the dtype its product will run in, and room for it."""
        head = prepared_head(self.head)
        space_CV = head.weight_VD.new_empty(min(chunk, len(self)), len(head.weight_VD))
        return HiddenStates(self.hidden_ND.detach(), head, space_CV)

    @torch.no_grad()
    def read(self, rows: slice) -> HiddenStates:
        """With the logits of these tokens, but for what follows the product with the head."""
        assert self.space_CV is not None, "prepared first"
        hidden_CD = self.hidden_ND[rows]
        return replace(self, hidden_ND=hidden_CD, product_NV=self.head.product(hidden_CD, self.space_CV))

    def _logits(self, rows: slice) -> Tensor:
        if self.product_NV is None:
            return self.head.logits(self.hidden_ND[rows])
        return self.head.logits_of(self.product_NV[rows])

    @torch.no_grad()
    def compare(
        self, student_logp_CV: Tensor, written_C: Tensor, temperature: float, rows: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Over the whole vocabulary. Raises ValueError when the student's has another size."""
        if len(self.head.weight_VD) != student_logp_CV.shape[-1]:
            sizes = f"{len(self.head.weight_VD)} ids and the student's {student_logp_CV.shape[-1]}"
            raise ValueError(f"teacher's head has {sizes}; cut both first")
        logp_CV = log_probs(self._logits(rows), temperature)
        return student_logp_CV, logp_CV, _at(logp_CV, written_C)

    @torch.no_grad()
    def among_top(self, written_C: Tensor, k: int, rows: slice) -> Tensor:
        """By the raw logits, as the gate does; ties count as among."""
        logits_CV = self._logits(rows)
        return _at(logits_CV, written_C) >= logits_CV.topk(min(k, logits_CV.shape[-1]), dim=-1).values[:, -1]


@dataclass(frozen=True)
class TopLogProbs:
    """The teacher's K most probable ids at each token, at temperature 1, and all other ids as one bucket.

    A divergence over these K + 1 buckets never exceeds the one over the vocabulary, and equals it when K is V.
    """

    ids_NK: Tensor
    """int64, most probable first, no id twice in a row."""
    logp_NB: Tensor
    """float32 [N, K + 1]: their log-probs, and last that of all other ids together; -inf when there are none."""
    written_logp_N: Tensor
    """float32: the log-prob of the token written, which need not be among the K."""

    def __len__(self) -> int:
        return len(self.ids_NK)

    def prepared(self, chunk: int) -> TopLogProbs:
        """Itself."""
        return self

    def read(self, rows: slice) -> TopLogProbs:
        """What is known of these tokens."""
        return TopLogProbs(self.ids_NK[rows], self.logp_NB[rows], self.written_logp_N[rows])

    def compare(
        self, student_logp_CV: Tensor, written_C: Tensor, temperature: float, rows: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Over the K + 1 buckets. Raises ConfigError at another temperature than 1, where they are not known."""
        if temperature != 1.0:
            found = f"is {temperature}, and stored log-probs of the teacher are those at temperature 1"
            raise ConfigError(Problem("SKD-T10", "objective.temperature", found, "write 1, or load the teacher"))
        return _bucketed(student_logp_CV, self.ids_NK[rows]), self.logp_NB[rows], self.written_logp_N[rows]

    def among_top(self, written_C: Tensor, k: int, rows: slice) -> Tensor:
        """By the stored ids; a ``k`` above K asks for more than is known and counts as K."""
        return (self.ids_NK[rows, :k] == written_C.unsqueeze(-1)).any(-1)


def _bucketed(logp_CV: Tensor, ids_CK: Tensor) -> Tensor:
    """Log-probs [C, K + 1] of the ids, and of all others together."""
    others_CV = logp_CV.scatter(-1, ids_CK, -math.inf)
    # Where the others have no mass, as when there are none, their sum has no gradient; logsumexp would give NaN.
    without_C1 = others_CV.detach().amax(-1, keepdim=True) == -math.inf
    others_C1 = others_CV.masked_fill_(without_C1, 0.0).logsumexp(-1, keepdim=True)
    return torch.cat([logp_CV.gather(-1, ids_CK), others_C1.masked_fill(without_C1, -math.inf)], dim=-1)


def prepared_head(head: Head) -> Head:
    """The head cut off from the graph and in the dtype its product will run in."""
    weight_VD = head.weight_VD.detach()
    bias_V = None if head.bias_V is None else head.bias_V.detach()
    if torch.is_autocast_enabled(weight_VD.device.type):
        dtype = torch.get_autocast_dtype(weight_VD.device.type)
        weight_VD, bias_V = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
    return replace(head, weight_VD=weight_VD, bias_V=bias_V)


@torch.no_grad()
def top_evidence(teacher: HiddenStates, written_N: Tensor, k: int) -> TopEvidence:
    """The ``k`` most probable ids at each token, at most V, with what TopLogProbs needs to know of the others."""
    parts = [_top_evidence(teacher, written_N, k, slice(i, i + _CHUNK)) for i in range(0, len(teacher), _CHUNK)]
    if not parts:
        k = min(k, len(teacher.head.weight_VD))
        return TopEvidence(written_N.new_zeros(0, k), torch.zeros(0, k + 1), torch.zeros(0))
    ids, logps, written = zip(*parts, strict=True)
    return TopEvidence(torch.cat(ids), torch.cat(logps), torch.cat(written))


def fewer_ids(evidence: TopEvidence, k: int) -> TopEvidence:
    """The same of the ``k`` most probable ids; the others join the bucket of the rest.

    Raises ConfigError (SKD-C07) where fewer are known.
    """
    if evidence.ids_LK.shape[1] < k:
        found = f"is {k}, and the teacher's server tells {evidence.ids_LK.shape[1]}"
        raise ConfigError(Problem("SKD-C07", "top_k", found, "ask for fewer, or raise teacher.top_logprobs"))
    rest_L1 = evidence.logp_LB[:, k:].logsumexp(-1, keepdim=True)
    return TopEvidence(evidence.ids_LK[:, :k], torch.cat([evidence.logp_LB[:, :k], rest_L1], -1), evidence.written_L)


def _top_evidence(teacher: HiddenStates, written_N: Tensor, k: int, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    logp_CV = log_probs(teacher.head.logits(teacher.hidden_ND[rows]))
    ids_CK = logp_CV.topk(min(k, logp_CV.shape[-1]), dim=-1).indices
    return ids_CK, _bucketed(logp_CV, ids_CK), _at(logp_CV, written_N[rows])


def _at(values_CV: Tensor, ids_C: Tensor) -> Tensor:
    return values_CV.gather(-1, ids_C.unsqueeze(-1)).squeeze(-1)

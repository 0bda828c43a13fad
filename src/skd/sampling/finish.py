"""From finished rows to a rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from skd.sampling.slots import Request, Slots
from skd.types import STUDENT, TEACHER, Rollout, SamplerStats

__all__ = ["Response", "gather_rollout", "gather_stats"]


@dataclass(frozen=True)
class Response:
    """A finished response: int64 ids [L], uint8 authors [L], evidence [L, D]."""

    ids: Tensor
    authors: Tensor
    evidence: Tensor | None
    truncated: bool

    @staticmethod
    def of(slots: Slots, slot: int, length: int, truncated: bool) -> Response:
        """Copy a response out of its slot."""
        evidence = slots.evidence_BWD
        return Response(
            ids=slots.ids_BW[slot, :length].cpu().clone(),
            authors=slots.authors_BW[slot, :length].cpu().clone(),
            evidence=None if evidence is None else evidence[slot, :length].clone(),
            truncated=truncated,
        )


def gather_stats(
    responses: Sequence[Response], drafted: int, rounds: int, seconds: Mapping[str, float]
) -> SamplerStats:
    """Count what the gate did from the authors of the finished responses."""
    longest = max((len(response.ids) for response in responses), default=0)
    written = torch.zeros(3, longest, dtype=torch.long)
    for response in responses:
        written[response.authors.long(), torch.arange(len(response.ids))] += 1
    return SamplerStats(
        kept=int(written[STUDENT].sum()),
        replaced=int(written[TEACHER].sum()),
        drafted=drafted,
        rounds=rounds,
        kept_by_position=written[STUDENT],
        replaced_by_position=written[TEACHER],
        seconds_draft=seconds["draft"],
        seconds_judge=seconds["judge"],
        seconds_rest=seconds["rest"],
    )


def gather_rollout(
    requests: Sequence[Request],
    responses: Sequence[Response],
    stats: SamplerStats,
    evidence: bool,
    tokenizer: PreTrainedTokenizerBase,
) -> Rollout:
    """A rollout of finished responses, in the order of the requests."""
    return Rollout(
        prompt_ids=[request.prompt for request in requests],
        response_ids=[response.ids for response in responses],
        authors=[response.authors for response in responses],
        truncated=torch.tensor([response.truncated for response in responses], dtype=torch.bool),
        sample_ids=[request.sample_id for request in requests],
        response_index=[request.response_index for request in requests],
        evidence=[r.evidence for r in responses if r.evidence is not None] if evidence else None,
        stats=stats,
        tokenizer=tokenizer,
    )

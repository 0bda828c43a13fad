"""From finished rows to a rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from skd.sampling.slots import Request, Slots
from skd.types import DATA, STUDENT, TEACHER, Rollout, SamplerStats

__all__ = ["Response", "gather_rollout", "gather_stats"]


@dataclass(frozen=True)
class Response:
    """A finished response: int64 ids [L], uint8 authors [L], evidence [L, D], float32 log-probs [L]."""

    ids: Tensor
    authors: Tensor
    evidence: Tensor | None
    student_logp: Tensor | None
    truncated: bool

    @staticmethod
    @torch.inference_mode(False)
    @torch.no_grad()
    def take(slots: Slots, rows: Sequence[int], ended: Sequence[int]) -> list[Response]:
        """Copy the responses in ``rows`` out of their slots, all with one transfer; ``ended`` has every slot."""
        if not rows:
            return []
        rows_b = torch.tensor(rows, device=slots.ids_BW.device)
        ids_bW, authors_bW = slots.ids_BW[rows_b].cpu(), slots.authors_BW[rows_b].cpu()
        logp_bW = None if slots.student_logp_BW is None else slots.student_logp_BW[rows_b].cpu()
        evidence, lengths = slots.evidence_BWD, [slots.lengths[slot] for slot in rows]
        return [
            Response(
                ids=ids_bW[i, :length],
                authors=authors_bW[i, :length],
                evidence=None if evidence is None else evidence[slot, :length].clone(),
                student_logp=None if logp_bW is None else logp_bW[i, :length],
                truncated=not ended[slot],
            )
            for i, (slot, length) in enumerate(zip(rows, lengths, strict=True))
        ]


def gather_stats(
    responses: Sequence[Response], drafted: int, rounds: int, seconds: Mapping[str, float]
) -> SamplerStats:
    """Count what the gate did from the authors of the finished responses."""
    # A row of length 0, because no responses cannot be padded.
    authors = [torch.empty(0, dtype=torch.uint8), *(response.authors for response in responses)]
    authors_RL = torch.nn.utils.rnn.pad_sequence(authors, batch_first=True, padding_value=DATA)
    kept_L, replaced_L = ((authors_RL == author).sum(dim=0) for author in (STUDENT, TEACHER))
    return SamplerStats(
        kept=int(kept_L.sum()),
        replaced=int(replaced_L.sum()),
        drafted=drafted,
        rounds=rounds,
        kept_by_position=kept_L,
        replaced_by_position=replaced_L,
        seconds_prefill=seconds["prefill"],
        seconds_draft=seconds["draft"],
        seconds_judge=seconds["judge"],
        seconds_rest=seconds["rest"],
    )


def gather_rollout(
    requests: Sequence[Request],
    responses: Sequence[Response],
    stats: SamplerStats,
    tokenizer: PreTrainedTokenizerBase,
    student_logp: bool,
) -> Rollout:
    """A rollout of finished responses, in the order of the requests; ``student_logp`` says whether those were kept."""
    own_prompts = any(request.teacher_prompt is not request.prompt for request in requests)
    return Rollout(
        prompt_ids=[request.prompt for request in requests],
        teacher_prompt_ids=[request.teacher_prompt for request in requests] if own_prompts else None,
        response_ids=[response.ids for response in responses],
        authors=[response.authors for response in responses],
        truncated=torch.tensor([response.truncated for response in responses], dtype=torch.bool),
        sample_ids=[request.sample_id for request in requests],
        response_index=[request.response_index for request in requests],
        student_logp=[r.student_logp for r in responses if r.student_logp is not None] if student_logp else None,
        stats=stats,
        tokenizer=tokenizer,
    )

"""From a rollout to the tensors of one training forward, and the module that turns them into a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skd.models import Pair, body, padded_sequences, predicting
from skd.objectives import HiddenStates, Objective, ResponseTokens, TeacherView, TopLogProbs, chunked_loss
from skd.types import Evidence, LossSum, Rollout, TopEvidence

__all__ = ["MicroBatch", "StudentLoss", "collate", "joined_evidence", "no_responses", "response_tokens", "teacher_view"]

_ARITHMETIC = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class MicroBatch:
    """Some responses of a rollout, padded on the right; N are their response tokens."""

    input_ids_BT: Tensor
    """Prompts with their responses, int64."""
    prompt_lengths: list[int]
    response_lengths: list[int]
    tokens: ResponseTokens
    weight_N: Tensor
    """float32: what the objective gives each token, not yet divided by the total weight."""
    evidence: Tensor | TopEvidence | None
    """What is known of the teacher at the tokens; None when the objective needs no teacher, or at no token."""
    progress: float
    """Share of the training done, for schedules."""
    route: str | None
    """The teacher that its responses have, where there are several."""


def collate(
    rollout: Rollout,
    rows: Sequence[int],
    weights: Sequence[Tensor],
    evidence: Evidence | None,
    progress: float,
    device: torch.device,
) -> MicroBatch:
    """The responses ``rows`` of a rollout, of one teacher, as one micro-batch; no rows give a batch of no tokens.

    Args:
        weights: float32 [L] of each response of the rollout.
        evidence: what is known of the teacher at each of ``rows``, in that order.
        progress: share of the training done.
    """
    prompts, responses = [rollout.prompt_ids[row] for row in rows], [rollout.response_ids[row] for row in rows]
    if not rows:
        # One token for a rank without responses: it must take part, or the others wait for its gradients.
        prompts, responses = [torch.zeros(1, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    return MicroBatch(
        input_ids_BT=padded_sequences(prompts, responses, device),
        prompt_lengths=[len(ids) for ids in prompts],
        response_lengths=[len(ids) for ids in responses],
        tokens=response_tokens(rollout, rows, device),
        weight_N=_joined([weights[row] for row in rows], torch.float32).to(device),
        evidence=joined_evidence(evidence, device) if evidence else None,
        progress=progress,
        route=rollout.route(rows),
    )


def no_responses(device: torch.device) -> MicroBatch:
    """A micro-batch without a token to learn from."""
    nothing = Rollout([], [], [], torch.zeros(0, dtype=torch.bool), [], [], student_logp=[])
    return collate(nothing, [], [], None, 0.0, device)


def response_tokens(rollout: Rollout, rows: Sequence[int], device: torch.device) -> ResponseTokens:
    """The response tokens of ``rows``, one after the other."""
    logps = rollout.student_logp
    positions = [torch.arange(len(rollout.response_ids[row])) for row in rows]
    return ResponseTokens(
        ids_N=_joined([rollout.response_ids[row] for row in rows], torch.int64).to(device),
        author_N=_joined([rollout.authors[row] for row in rows], torch.uint8).to(device),
        position_N=_joined(positions, torch.int64).to(device),
        rollout_logp_N=None if logps is None else _joined([logps[row] for row in rows], torch.float32).to(device),
    )


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=dtype)


def joined_evidence(evidence: Evidence, device: torch.device) -> Tensor | TopEvidence:
    """That of several responses, at their tokens one after the other."""
    stored = [part for part in evidence if isinstance(part, TopEvidence)]
    if not stored:
        return torch.cat([part for part in evidence if isinstance(part, Tensor)]).to(device)
    return TopEvidence(
        ids_LK=torch.cat([part.ids_LK for part in stored]).long().to(device),
        logp_LB=torch.cat([part.logp_LB for part in stored]).to(device),
        written_L=torch.cat([part.written_L for part in stored]).to(device),
    )


def teacher_view(pair: Pair, evidence: Tensor | TopEvidence | None, device: torch.device) -> TeacherView:
    """What is known of the teacher at some tokens; without evidence, at none."""
    if evidence is None and pair.teacher is None:  # stored evidence, or a server's
        nothing = torch.zeros(0, 1, device=device)
        evidence = TopEvidence(nothing.long(), torch.zeros(0, 2, device=device), nothing[:, 0])
    if isinstance(evidence, TopEvidence):
        return TopLogProbs(evidence.ids_LK, evidence.logp_LB, evidence.written_L)
    head = pair.teacher_head()
    if evidence is None:
        evidence = torch.zeros(0, head.weight_VD.shape[1], device=device)
    return HiddenStates(evidence, head)


class StudentLoss(nn.Module):
    """Body, head and loss in one forward: gradient hooks that a wrapper sets must fire for the head too.

    Args:
        precision: "fp32", or "bf16" or "fp16" for autocast of the forward around float32 weights.
    """

    def __init__(self, pair: Pair, objective: Objective, precision: str) -> None:
        super().__init__()
        self.student = pair.student
        self._pair = pair
        self._objective = objective
        self._arithmetic = _ARITHMETIC[precision]

    def forward(self, batch: MicroBatch) -> LossSum:
        """The micro-batch's sum of weight x token loss, with its gradient, and what the logs show of each token."""
        device = batch.input_ids_BT.device
        needs_teacher = self._objective.needs_teacher
        enabled = self._arithmetic != torch.float32
        # What autocast keeps of each weight until the end is of use to a backward pass alone.
        with torch.autocast(device.type, self._arithmetic, enabled, cache_enabled=torch.is_grad_enabled()):
            hidden_BTD = body(self.student)(input_ids=batch.input_ids_BT, use_cache=False).last_hidden_state
            return chunked_loss(
                torch.cat(predicting(hidden_BTD, batch.prompt_lengths, batch.response_lengths)),
                self._pair.student_head(),
                batch.tokens,
                batch.weight_N,
                self._objective,
                teacher=teacher_view(self._pair.of(batch.route), batch.evidence, device) if needs_teacher else None,
                progress=batch.progress,
            )

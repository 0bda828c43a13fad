"""From a rollout to the tensors of one training forward, and the module that turns them into a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skd.models import Pair, body, padded_sequences, predicting
from skd.objectives import Objective, chunked_loss
from skd.types import Rollout

__all__ = ["MicroBatch", "StudentLoss", "collate"]


@dataclass(frozen=True)
class MicroBatch:
    """Some responses of a rollout, padded on the right; N are their response tokens."""

    input_ids_BT: Tensor
    """Prompts with their responses, int64."""
    prompt_lengths: list[int]
    response_lengths: list[int]
    target_ids_N: Tensor
    weight_N: Tensor
    """float32: what the objective gives each token, not yet divided by the total weight."""
    author_N: Tensor
    teacher_hidden_ND: Tensor | None
    """The evidence; None when the objective needs no teacher."""


def collate(
    rollout: Rollout,
    rows: Sequence[int],
    weights: Sequence[Tensor],
    evidence: Sequence[Tensor] | None,
    device: torch.device,
) -> MicroBatch:
    """The responses ``rows`` of a rollout as one micro-batch; no rows at all give a batch of no tokens.

    Args:
        weights: float32 [L] of each response of the rollout.
        evidence: [L, D_teacher] of each of ``rows``, in that order.
    """
    prompts, responses = [rollout.prompt_ids[row] for row in rows], [rollout.response_ids[row] for row in rows]
    if not rows:
        # One token for a rank without responses: it must take part, or the others wait for its gradients.
        prompts, responses = [torch.zeros(1, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    return MicroBatch(
        input_ids_BT=padded_sequences(prompts, responses, device),
        prompt_lengths=[len(ids) for ids in prompts],
        response_lengths=[len(ids) for ids in responses],
        target_ids_N=torch.cat(responses).to(device),
        weight_N=_joined([weights[row] for row in rows], torch.float32).to(device),
        author_N=_joined([rollout.authors[row] for row in rows], torch.uint8).to(device),
        teacher_hidden_ND=torch.cat(list(evidence)).to(device) if evidence else None,
    )


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=dtype)


class StudentLoss(nn.Module):
    """Body, head and loss in one forward: gradient hooks that a wrapper sets must fire for the head too.

    Args:
        precision: "fp32", or "bf16" for autocast of the forward around float32 weights.
    """

    def __init__(self, pair: Pair, objective: Objective, precision: str) -> None:
        super().__init__()
        self.student = pair.student
        self._pair = pair
        self._objective = objective
        self._bf16 = precision == "bf16"

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """(sum of weight x token loss, scalar; token losses [N], detached)."""
        with torch.autocast(batch.input_ids_BT.device.type, torch.bfloat16, enabled=self._bf16):
            hidden_BTD = body(self.student)(input_ids=batch.input_ids_BT, use_cache=False).last_hidden_state
            sums = chunked_loss(
                torch.cat(predicting(hidden_BTD, batch.prompt_lengths, batch.response_lengths)),
                self._pair.student_head(),
                batch.target_ids_N,
                batch.weight_N,
                self._objective.token_loss,
                temperature=self._objective.temperature,
                teacher_hidden_ND=self._teacher_hidden(batch),
                teacher_head=self._pair.teacher_head() if self._objective.needs_teacher else None,
            )
        return sums.loss, sums.token_loss_N

    def _teacher_hidden(self, batch: MicroBatch) -> Tensor | None:
        if not self._objective.needs_teacher or batch.teacher_hidden_ND is not None:
            return batch.teacher_hidden_ND
        width = self._pair.teacher_head().weight_VD.shape[1]
        return torch.zeros(0, width, device=batch.input_ids_BT.device)

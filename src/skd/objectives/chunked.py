"""The loss from hidden states, a chunk of tokens at a time, so that no [N, V] tensor of a whole batch ever exists.

The gradient of a chunk is taken as soon as its loss is known, and only the sums [N, D] and [V, D] are kept; backward
just scales them. So the memory of one call is the budget plus a few copies of the head, whatever N is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skd.errors import ConfigError, Problem
from skd.objectives.divergences import kl
from skd.objectives.objective import Objective
from skd.objectives.teacher import TeacherView, prepared_head
from skd.objectives.tokens import ResponseTokens, Tokens, log_probs
from skd.types import Head, LossSum

__all__ = ["DEFAULT_BUDGET_BYTES", "ROWS_PER_TOKEN", "chunked_loss"]

DEFAULT_BUDGET_BYTES = 512 * 2**20

# Float32 rows [V] alive at once per token, at the peak of a forward and backward of the divergences; measured.
ROWS_PER_TOKEN = 16


def chunked_loss(
    student_hidden_ND: Tensor,
    student_head: Head,
    tokens: ResponseTokens,
    weights_N: Tensor,
    objective: Objective,
    *,
    teacher: TeacherView | None = None,
    progress: float = 0.0,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> LossSum:
    """Sum over tokens of weight x token loss, with its gradient for the student's hidden states and head.

    Args:
        student_hidden_ND: last hidden state that predicts each token, [N, D]; N may be 0.
        student_head: its head; weight and bias get a gradient where they require one, tied embeddings included.
        tokens: the N tokens that the responses have there.
        weights_N: factor of each token's loss; tokens of weight 0 add nothing, whatever their loss.
        objective: token loss, target and temperature; its own weights are not looked at.
        teacher: what is known of the teacher at the same tokens; needed unless the loss is without a teacher. It gets
            no gradient.
        progress: share of the training done, for schedules.
        budget_bytes: memory for the [tokens of a chunk, V] tensors; a chunk has at least one token.

    The products with the heads follow autocast; softmax, loss and sums are float32 always. Without grad mode, or with
    nothing that requires a gradient, none is computed.

    Raises ConfigError when the loss needs a teacher and none is given, ValueError when shapes do not fit.
    """
    if objective.token_loss.needs_teacher and teacher is None:
        found = f"{type(objective.token_loss).__name__} compares with a teacher, and there is none"
        raise ConfigError(Problem("SKD-T09", "objective", found, "give the teacher, or choose the objective nll"))
    batch = _Batch(
        tokens=tokens,
        weights_N=weights_N.detach(),
        objective=objective,
        teacher=None if teacher is None else teacher.prepared(),
        progress=progress,
        chunk=max(1, budget_bytes // (ROWS_PER_TOKEN * 4 * student_head.weight_VD.shape[0])),
    )
    _check_shapes(student_hidden_ND, batch)
    inputs = (student_hidden_ND, student_head.weight_VD, student_head.bias_V)
    apply = _ChunkedLoss.apply
    sums = apply(*inputs, student_head, batch, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    loss, token_loss_N, token_nll_N, token_kl_N = sums
    return LossSum(loss, token_loss_N, token_nll_N, None if teacher is None else token_kl_N)


@dataclass(frozen=True)
class _Batch:
    """What the loss reads and no gradient reaches."""

    tokens: ResponseTokens
    weights_N: Tensor
    objective: Objective
    teacher: TeacherView | None
    progress: float
    chunk: int
    """Tokens of one chunk."""

    def chunks(self) -> Iterator[slice]:
        num_tokens = len(self.tokens)
        return (slice(i, min(i + self.chunk, num_tokens)) for i in range(0, num_tokens, self.chunk))

    def look(self, student_hidden_CD: Tensor, student_head: Head, rows: slice) -> Tokens:
        """The tokens of a chunk as the loss sees them."""
        response = self.tokens.at(rows)
        logp_CV = log_probs(student_head.logits(student_hidden_CD), self.objective.temperature)
        written_C = logp_CV.gather(-1, response.ids_N.unsqueeze(-1)).squeeze(-1)
        if self.teacher is None:
            return Tokens(response, logp_CV, written_C, progress=self.progress)
        compared = self.teacher.compare(logp_CV, response.ids_N, self.objective.temperature, rows)
        student_logp_CV, teacher_logp_CV, teacher_written_C = compared
        return Tokens(response, student_logp_CV, written_C, teacher_logp_CV, teacher_written_C, self.progress)

    @torch.no_grad()
    def measured(self, tokens: Tokens, token_loss_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, NLL and forward KL to the teacher of each token, for the logs."""
        kl_C = token_loss_C
        if tokens.teacher_logp_NV is not None and not self.objective.is_forward_kl:
            kl_C = kl(tokens.given_teacher(), tokens.student_logp_NV)
        return token_loss_C.detach(), -tokens.student_written_N, kl_C.detach()


class _ChunkedLoss(torch.autograd.Function):
    """Loss and gradient in one pass over the chunks; backward scales the gradient that forward found."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        head: Head,
        batch: _Batch,
        grad_enabled: bool,
    ) -> tuple[Tensor, ...]:
        needs = [grad_enabled and needed for needed in ctx.needs_input_grad[:3]]
        # The head is cast for autocast once and here, not by autocast in each chunk, whose cache would keep the copy.
        leaves_head = prepared_head(head, weight_grad=needs[1], bias_grad=needs[2])
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs[0] else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs[1] else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needs[2] and bias_V is not None else None

        measured = []
        for rows in batch.chunks():
            hidden_CD = hidden_ND[rows].detach().requires_grad_(needs[0])
            with torch.set_grad_enabled(any(needs)):
                tokens = batch.look(hidden_CD, leaves_head, rows)
                token_loss_C = batch.objective.token_losses(tokens)
                loss = _weighted_sum(token_loss_C, batch.weights_N[rows])
            measured.append(batch.measured(tokens, token_loss_C))
            if not any(needs):
                continue
            leaves = [x for x in (hidden_CD, leaves_head.weight_VD, leaves_head.bias_V) if x is not None]
            grads = iter(torch.autograd.grad(loss, [x for x in leaves if x.requires_grad]))
            if grad_hidden_ND is not None:
                grad_hidden_ND[rows] = next(grads)
            if grad_weight_VD is not None:
                grad_weight_VD += next(grads)
            if grad_bias_V is not None:
                grad_bias_V += next(grads)

        columns = (torch.cat(column) for column in zip(*measured, strict=True))
        empty = hidden_ND.new_zeros(0, dtype=torch.float32)
        token_loss_N, token_nll_N, token_kl_N = columns if measured else (empty, empty.clone(), empty.clone())
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.mark_non_differentiable(token_loss_N, token_nll_N, token_kl_N)
        return _weighted_sum(token_loss_N, batch.weights_N), token_loss_N, token_nll_N, token_kl_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *grads_of_logs: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if grad is None else grad * grad_loss for grad in ctx.saved_tensors)
        return (*scaled, None, None, None)


def _weighted_sum(token_loss_N: Tensor, weights_N: Tensor) -> Tensor:
    """Float32 scalar. A token of weight 0 is left out before the product, for its loss may be infinite."""
    counted_N = token_loss_N.masked_fill(weights_N == 0, 0.0)
    return (counted_N * weights_N.float()).sum()


def _check_shapes(student_hidden_ND: Tensor, batch: _Batch) -> None:
    num_tokens = len(student_hidden_ND)
    lengths = {"tokens": len(batch.tokens), "weights_N": len(batch.weights_N)}
    if batch.teacher is not None:
        lengths["teacher"] = len(batch.teacher)
    for name, length in lengths.items():
        if length != num_tokens:
            raise ValueError(f"{name} has {length} rows and student_hidden_ND has {num_tokens}; one row per token")

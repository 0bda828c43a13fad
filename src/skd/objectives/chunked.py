"""The loss from hidden states, a chunk of tokens at a time, so that no [N, V] tensor of a whole batch ever exists.

The gradient of a chunk is taken as soon as its loss is known, and only the sums [N, D] and [V, D] are kept; backward
just scales them. So the memory of one call is the budget plus a few copies of the head, whatever N is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skd.errors import ConfigError, Problem
from skd.objectives.divergences import TokenLoss, log_probs
from skd.types import Head, LossSum

__all__ = ["DEFAULT_BUDGET_BYTES", "chunked_loss"]

DEFAULT_BUDGET_BYTES = 512 * 2**20

# Float32 rows [V] alive at once per token, at the peak of a forward and backward of the divergences; measured.
_ROWS_PER_TOKEN = 16


def chunked_loss(
    student_hidden_ND: Tensor,
    student_head: Head,
    target_ids_N: Tensor,
    weights_N: Tensor,
    objective_token_loss: TokenLoss,
    *,
    temperature: float,
    teacher_hidden_ND: Tensor | None = None,
    teacher_head: Head | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> LossSum:
    """Sum over tokens of weight x token loss, with its gradient for the student's hidden states and head.

    Args:
        student_hidden_ND: last hidden state that predicts each token, [N, D]; N may be 0.
        student_head: its head; weight and bias get a gradient where they require one, tied embeddings included.
        target_ids_N: the token that the response has at each position, int64 [N].
        weights_N: weight of each token; tokens of weight 0 add nothing, whatever their loss.
        objective_token_loss: NLL(), ForwardKL(), ReverseKL(), JSD(beta) or another TokenLoss.
        temperature: divides the logits of both models before the softmax; no factor T^2.
        teacher_hidden_ND: the same for the teacher, [N, D_teacher]; needed unless the loss is without a teacher.
        teacher_head: the teacher's head, over the same V ids. The teacher gets no gradient.
        budget_bytes: memory for the [tokens of a chunk, V] tensors; a chunk has at least one token.

    The products with the heads follow autocast; softmax, loss and sums are float32 always. Without grad mode, or with
    nothing that requires a gradient, none is computed.

    Raises ConfigError when the loss needs a teacher and none is given, ValueError when shapes do not fit.
    """
    if objective_token_loss.needs_teacher and (teacher_hidden_ND is None or teacher_head is None):
        found = f"{type(objective_token_loss).__name__} compares with a teacher, and there is none"
        raise ConfigError(Problem("SKD-T09", "objective", found, "give the teacher, or choose the objective nll"))
    teacher = None
    if objective_token_loss.needs_teacher and teacher_hidden_ND is not None and teacher_head is not None:
        teacher = (teacher_hidden_ND.detach(), _prepared(teacher_head))
    batch = _Batch(
        target_ids_N=target_ids_N,
        weights_N=weights_N.detach(),
        token_loss=objective_token_loss,
        temperature=temperature,
        teacher=teacher,
        chunk=max(1, budget_bytes // (_ROWS_PER_TOKEN * 4 * student_head.weight_VD.shape[0])),
    )
    _check_shapes(student_hidden_ND, student_head, batch)
    inputs = (student_hidden_ND, student_head.weight_VD, student_head.bias_V)
    apply = _ChunkedLoss.apply
    loss, token_loss_N = apply(*inputs, student_head, batch, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return LossSum(loss=loss, token_loss_N=token_loss_N)


@dataclass(frozen=True)
class _Batch:
    """What the loss reads and no gradient reaches."""

    target_ids_N: Tensor
    weights_N: Tensor
    token_loss: TokenLoss
    temperature: float
    teacher: tuple[Tensor, Head] | None
    """Hidden states [N, D_teacher] and head; None when the loss does not read them."""
    chunk: int
    """Tokens of one chunk."""

    def chunks(self) -> Iterator[slice]:
        num_tokens = len(self.target_ids_N)
        return (slice(i, min(i + self.chunk, num_tokens)) for i in range(0, num_tokens, self.chunk))

    def teacher_logp(self, rows: slice) -> Tensor | None:
        if self.teacher is None:
            return None
        hidden_ND, head = self.teacher
        with torch.no_grad():
            return log_probs(head.logits(hidden_ND[rows]), self.temperature)

    def token_losses(self, student_hidden_CD: Tensor, student_head: Head, rows: slice) -> Tensor:
        student_logp_CV = log_probs(student_head.logits(student_hidden_CD), self.temperature)
        return self.token_loss(student_logp_CV, self.teacher_logp(rows), self.target_ids_N[rows])


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
    ) -> tuple[Tensor, Tensor]:
        needs = [grad_enabled and needed for needed in ctx.needs_input_grad[:3]]
        # The head is cast for autocast once and here, not by autocast in each chunk, whose cache would keep the copy.
        leaves_head = _prepared(head, weight_grad=needs[1], bias_grad=needs[2])
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs[0] else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs[1] else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needs[2] and bias_V is not None else None

        token_losses = []
        for rows in batch.chunks():
            hidden_CD = hidden_ND[rows].detach().requires_grad_(needs[0])
            with torch.set_grad_enabled(any(needs)):
                token_loss_C = batch.token_losses(hidden_CD, leaves_head, rows)
                loss = _weighted_sum(token_loss_C, batch.weights_N[rows])
            token_losses.append(token_loss_C.detach())
            if not any(needs):
                continue
            leaves = (hidden_CD, leaves_head.weight_VD, leaves_head.bias_V)
            grads = iter(torch.autograd.grad(loss, [x for x in leaves if x is not None and x.requires_grad]))
            if grad_hidden_ND is not None:
                grad_hidden_ND[rows] = next(grads)
            if grad_weight_VD is not None:
                grad_weight_VD += next(grads)
            if grad_bias_V is not None:
                grad_bias_V += next(grads)

        token_loss_N = torch.cat(token_losses) if token_losses else hidden_ND.new_zeros(0, dtype=torch.float32)
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.mark_non_differentiable(token_loss_N)
        return _weighted_sum(token_loss_N, batch.weights_N), token_loss_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_token_loss_N: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if grad is None else grad * grad_loss for grad in ctx.saved_tensors)
        return (*scaled, None, None, None)


def _weighted_sum(token_loss_N: Tensor, weights_N: Tensor) -> Tensor:
    """Float32 scalar. A token of weight 0 is left out before the product, for its loss may be infinite."""
    counted_N = token_loss_N.masked_fill(weights_N == 0, 0.0)
    return (counted_N * weights_N.float()).sum()


def _prepared(head: Head, weight_grad: bool = False, bias_grad: bool = False) -> Head:
    """The head cut off from the graph and in the dtype its product will run in, its parts leaves where asked."""
    weight_VD = head.weight_VD.detach()
    bias_V = None if head.bias_V is None else head.bias_V.detach()
    if torch.is_autocast_enabled(weight_VD.device.type):
        dtype = torch.get_autocast_dtype(weight_VD.device.type)
        weight_VD, bias_V = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
    weight_VD.requires_grad_(weight_grad)
    return replace(head, weight_VD=weight_VD, bias_V=None if bias_V is None else bias_V.requires_grad_(bias_grad))


def _check_shapes(student_hidden_ND: Tensor, student_head: Head, batch: _Batch) -> None:
    num_tokens = len(student_hidden_ND)
    lengths = {"target_ids_N": len(batch.target_ids_N), "weights_N": len(batch.weights_N)}
    if batch.teacher is not None:
        lengths["teacher_hidden_ND"] = len(batch.teacher[0])
    for name, length in lengths.items():
        if length != num_tokens:
            raise ValueError(f"{name} has {length} rows and student_hidden_ND has {num_tokens}; one row per token")
    if batch.teacher is not None and len(batch.teacher[1].weight_VD) != len(student_head.weight_VD):
        teacher_size, student_size = len(batch.teacher[1].weight_VD), len(student_head.weight_VD)
        raise ValueError(f"teacher's head has {teacher_size} ids and the student's {student_size}; cut both first")

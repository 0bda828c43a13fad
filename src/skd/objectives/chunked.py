"""The loss from hidden states, a chunk of tokens at a time, so that no [N, V] tensor of a whole batch ever exists.

The products with the heads run over a chunk, into buffers that all chunks share. Between them the student's logits
give way, tile by tile, to the loss's gradient for them; on a CPU a tile is small enough for a core's own cache. The
gradients [N, D] and [V, D] grow in place, and backward just scales them. So the memory of one call is the budget plus
one gradient of the head, whatever N is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skd.errors import ConfigError, Problem
from skd.objectives.cut import Cut
from skd.objectives.divergences import kl
from skd.objectives.objective import Objective
from skd.objectives.teacher import TeacherView, prepared_head
from skd.objectives.tokens import ResponseTokens, Tokens, log_probs
from skd.types import Head, LossSum

__all__ = ["chunked_loss"]


def chunked_loss(
    student_hidden_ND: Tensor,
    student_head: Head,
    tokens: ResponseTokens,
    weights_N: Tensor,
    objective: Objective,
    *,
    teacher: TeacherView | None = None,
    progress: float = 0.0,
    cut: Cut | None = None,
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
        cut: tokens taken at once; by default what the default budget allows. It changes rounding and cost only.

    The products with the heads follow autocast; softmax, loss and sums are float32 always. Without grad mode, or with
    nothing that requires a gradient, none is computed.

    Raises ConfigError when the loss needs a teacher and none is given, ValueError when shapes do not fit.
    """
    if objective.token_loss.needs_teacher and teacher is None:
        found = f"{type(objective.token_loss).__name__} compares with a teacher, and there is none"
        raise ConfigError(Problem("SKD-T09", "objective", found, "give the teacher, or choose the objective nll"))
    cut = cut or Cut.of(len(student_head.weight_VD), student_hidden_ND.device.type)
    batch = _Batch(
        tokens=tokens,
        weights_N=weights_N.detach(),
        objective=objective,
        teacher=None if teacher is None else teacher.prepared(cut.chunk),
        progress=progress,
        cut=cut,
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
    cut: Cut

    def read(self, rows: slice) -> _Batch:
        """The tokens of a chunk alone, the teacher's side prepared."""
        teacher = None if self.teacher is None else self.teacher.read(rows)
        return replace(self, tokens=self.tokens.at(rows), weights_N=self.weights_N[rows], teacher=teacher)

    def loss(self, product_TV: Tensor, head: Head, rows: slice) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The weighted loss of a tile, and what is logged of each of its tokens."""
        tokens = self._look(head.logits_of(product_TV), rows)
        token_loss_T = self.objective.token_losses(tokens)
        return _weighted_sum(token_loss_T, self.weights_N[rows]), self._measured(tokens, token_loss_T)

    def _look(self, logits_TV: Tensor, rows: slice) -> Tokens:
        """The tokens of a tile as the loss sees them."""
        response = self.tokens.at(rows)
        logp_TV = log_probs(logits_TV, self.objective.temperature)
        written_T = logp_TV.gather(-1, response.ids_N.unsqueeze(-1)).squeeze(-1)
        if self.teacher is None:
            return Tokens(response, logp_TV, written_T, progress=self.progress)
        compared = self.teacher.compare(logp_TV, response.ids_N, self.objective.temperature, rows)
        student_logp_TV, teacher_logp_TV, teacher_written_T = compared
        return Tokens(response, student_logp_TV, written_T, teacher_logp_TV, teacher_written_T, self.progress)

    @torch.no_grad()
    def _measured(self, tokens: Tokens, token_loss_T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, NLL and forward KL to the teacher of each token, for the logs."""
        kl_T = token_loss_T
        if tokens.teacher_logp_NV is not None and not self.objective.is_forward_kl:
            kl_T = kl(tokens.given_teacher(), tokens.student_logp_NV)
        return token_loss_T.detach(), -tokens.student_written_N.detach(), kl_T.detach()


@dataclass(frozen=True)
class _Grads:
    """The gradients as they grow; None where none is needed."""

    hidden_ND: Tensor | None
    weight_VD: Tensor | None
    bias_V: Tensor | None

    @staticmethod
    def zeros(needs: Sequence[bool], inputs: Sequence[Tensor | None]) -> _Grads:
        hidden_ND, *head = (tensor if needed else None for needed, tensor in zip(needs, inputs, strict=True))
        empty_ND = None if hidden_ND is None else torch.empty_like(hidden_ND)
        return _Grads(empty_ND, *(None if x is None else torch.zeros_like(x, dtype=torch.float32) for x in head))

    def __bool__(self) -> bool:
        return any(grad is not None for grad in (self.hidden_ND, self.weight_VD, self.bias_V))

    def add(self, grad_CV: Tensor, hidden_CD: Tensor, weight_VD: Tensor, rows: slice) -> None:
        """Those of a chunk, from the loss's gradient for the student's product with the head."""
        if self.hidden_ND is not None:
            self.hidden_ND[rows] = grad_CV @ weight_VD
        if self.weight_VD is not None and grad_CV.dtype == torch.float32:
            self.weight_VD.addmm_(grad_CV.t(), hidden_CD.to(grad_CV.dtype))
        elif self.weight_VD is not None:
            self.weight_VD.add_(grad_CV.t() @ hidden_CD.to(grad_CV.dtype))
        if self.bias_V is not None:
            self.bias_V.add_(grad_CV.sum(0, dtype=torch.float32))


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
        grads = _Grads.zeros(needs, (hidden_ND, weight_VD, bias_V))
        # The head is cast for autocast once and here, not by autocast in each chunk, whose cache would keep the copy.
        head = prepared_head(head)
        space_CV = head.weight_VD.new_empty(min(batch.cut.chunk, len(hidden_ND)), len(weight_VD))

        # One piece of memory for what is logged: small tensors kept between the tiles would hold their memory apart.
        logged = [hidden_ND.new_empty(len(hidden_ND), dtype=torch.float32) for _ in range(3)]
        for rows in _slices(len(hidden_ND), batch.cut.chunk):
            hidden_CD, part = hidden_ND[rows].detach(), batch.read(rows)
            product_CV = head.product(hidden_CD, space_CV)
            for tile in _slices(len(part.tokens), batch.cut.tile):
                measured = _tile(part, head, product_CV, tile, bool(grads))
                for column_N, values_T in zip(logged, measured, strict=True):
                    column_N[rows][tile] = values_T
            grads.add(product_CV, hidden_CD, head.weight_VD, rows)

        token_loss_N, token_nll_N, token_kl_N = logged
        ctx.save_for_backward(grads.hidden_ND, grads.weight_VD, grads.bias_V)
        ctx.mark_non_differentiable(token_loss_N, token_nll_N, token_kl_N)
        return _weighted_sum(token_loss_N, batch.weights_N), token_loss_N, token_nll_N, token_kl_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *grads_of_logs: Tensor) -> tuple[Tensor | None, ...]:
        # In place, for a copy of the head's would be dear; a second backward is refused by autograd itself.
        scaled = (None if grad is None else grad.mul_(grad_loss) for grad in ctx.saved_tensors)
        return (*scaled, None, None, None)


def _tile(part: _Batch, head: Head, product_CV: Tensor, rows: slice, needs_grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What is logged of the tokens of a tile; the loss's gradient takes the place of their product with the head."""
    product_TV = product_CV[rows].detach().requires_grad_(needs_grad)
    with torch.set_grad_enabled(needs_grad):
        loss, measured = part.loss(product_TV, head, rows)
    if needs_grad:
        (grad_TV,) = torch.autograd.grad(loss, product_TV)
        product_CV[rows] = grad_TV
    return measured


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


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

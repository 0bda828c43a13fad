"""Slots: the rows of a sampler's batch, and the responses waiting for one.

A slot holds one response while it is written. When it ends, the slot goes to the next response that waits, so that a
long one does not hold up the batch; when none waits, finished rows are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skd.sampling.noise import Purpose, uniform

__all__ = ["Request", "Slots"]

_NOISES = (Purpose.DRAFT, Purpose.ACCEPT, Purpose.REPLACE)
_REFILL_SHARE = 4
"""Slots are refilled once a quarter of them is idle: a prefill for each alone would cost as much as a draft step."""


@dataclass(frozen=True)
class Request:
    """One response to be written."""

    index: int
    """Its row in the rollout."""
    prompt: Tensor
    """int64 [P], P >= 1, on the CPU."""
    sample_id: int
    response_index: int
    epoch: int

    @cached_property
    def prompt_length(self) -> int:
        """P."""
        return len(self.prompt)


class Slots:
    """State of B slots: tensors [B, ...] on the device, and what the host must know of it."""

    def __init__(
        self,
        requests: Sequence[Request],
        num_slots: int,
        cap: int,
        block: int,
        seed: int,
        state_size: int,
        device: torch.device,
    ) -> None:
        # Long prompts first, so that prompts that are filled together are alike in length.
        self._waiting = sorted(requests, key=lambda request: (-len(request.prompt), request.index))
        size = min(num_slots, len(self._waiting))
        self._cap, self._seed, self._device = cap, seed, device
        self.held: list[Request | None] = [None] * size
        self.lengths = [0] * size
        """Tokens written so far, by slot, on the host."""
        zeros = torch.zeros(size, dtype=torch.int64, device=device)
        self.cursor_B, self.length_B, self.pending_B = zeros, zeros.clone(), zeros.clone()
        self.active_B = torch.zeros(size, dtype=torch.bool, device=device)
        # Blocks are written whole and cut by the length, so a row needs room for one block beyond the cap.
        self.ids_BW = torch.zeros(size, cap + block, dtype=torch.int64, device=device)
        self.authors_BW = torch.zeros(size, cap + block, dtype=torch.uint8, device=device)
        self.evidence_BWD: Tensor | None = None
        self.state_BS = torch.zeros(size, state_size, device=device)
        self._noise_3BL = torch.zeros(len(_NOISES), size, cap, dtype=torch.float64, device=device)

    @property
    def num_waiting(self) -> int:
        """Responses without a slot yet."""
        return len(self._waiting)

    @property
    def num_active(self) -> int:
        """Slots that hold a response."""
        return sum(request is not None for request in self.held)

    @property
    def num_keys(self) -> int:
        """Cache positions in use by the longest row."""
        return max(
            request.prompt_length - 1 + length
            for request, length in zip(self.held, self.lengths, strict=True)
            if request is not None
        )

    def positions(self, block: int) -> Tensor:
        """Response positions [B, G] of the next ``block`` tokens."""
        return self.length_B.unsqueeze(1) + torch.arange(block, device=self._device)

    def noise(self, block: int) -> tuple[Tensor, Tensor, Tensor]:
        """Uniforms [B, G] for the next ``block`` tokens: draft, accept, replace."""
        position_BG = self.positions(block).clamp(max=self._cap - 1)
        draft, accept, replace = self._noise_3BL.gather(2, position_BG.expand(len(_NOISES), -1, -1))
        return draft, accept, replace

    def refill(self) -> tuple[Tensor, Tensor] | None:
        """Give idle slots to waiting responses: their prompts without the last token [b, T], and the slots [b]."""
        idle = [slot for slot, request in enumerate(self.held) if request is None]
        if not self._waiting or not idle or (self.num_active and len(idle) * _REFILL_SHARE < len(self.held)):
            return None
        taken, self._waiting = self._waiting[: len(idle)], self._waiting[len(idle) :]
        slots = idle[: len(taken)]
        for slot, request in zip(slots, taken, strict=True):
            self.held[slot], self.lengths[slot] = request, 0
        rows_b = torch.tensor(slots, device=self._device)
        self._start(rows_b, taken)
        ids_bT = torch.nn.utils.rnn.pad_sequence([request.prompt[:-1] for request in taken], batch_first=True)
        return ids_bT.to(self._device), rows_b

    def shrink(self) -> Tensor | None:
        """Drop finished rows once nothing waits and half are done; returns the rows [b] that stay, else None."""
        if self._waiting or self.num_active * 2 > len(self.held) or self.num_active == 0:
            return None
        kept = [slot for slot, request in enumerate(self.held) if request is not None]
        self.held, self.lengths = [self.held[slot] for slot in kept], [self.lengths[slot] for slot in kept]
        rows_b = torch.tensor(kept, device=self._device)
        for name in ("cursor_B", "length_B", "pending_B", "active_B", "ids_BW", "authors_BW", "state_BS"):
            setattr(self, name, getattr(self, name)[rows_b])
        self._noise_3BL = self._noise_3BL[:, rows_b]
        if self.evidence_BWD is not None:
            self.evidence_BWD = self.evidence_BWD[rows_b]
        return rows_b

    def write(self, ids_BG: Tensor, authors_BG: Tensor, hidden_BGD: Tensor | None) -> None:
        """Write a block after what is there. Nothing is committed until ``advance`` moves the lengths."""
        index_BG = self.positions(ids_BG.shape[1])
        self.ids_BW.scatter_(1, index_BG, ids_BG)
        self.authors_BW.scatter_(1, index_BG, authors_BG)
        if hidden_BGD is None:
            return
        if self.evidence_BWD is None:
            self.evidence_BWD = hidden_BGD.new_zeros(*self.ids_BW.shape, hidden_BGD.shape[-1])
        self.evidence_BWD.scatter_(1, index_BG.unsqueeze(-1).expand_as(hidden_BGD), hidden_BGD)

    def advance(self, count_B: Tensor) -> None:
        """Commit the first ``count_B`` tokens of what was written; the last one becomes the pending token."""
        self.length_B = self.length_B + count_B
        self.cursor_B = self.cursor_B + count_B
        last_B = self.ids_BW.gather(1, (self.length_B - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        self.pending_B = torch.where(count_B > 0, last_B, self.pending_B)

    def release(self, slot: int) -> Request:
        """Take a finished response out of its slot."""
        request = self.held[slot]
        assert request is not None
        self.held[slot] = None
        self.active_B[slot] = False
        return request

    def _start(self, rows_b: Tensor, requests: Sequence[Request]) -> None:
        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=self._device)

        self.cursor_B[rows_b] = column([len(request.prompt) - 1 for request in requests])
        self.pending_B[rows_b] = column([int(request.prompt[-1]) for request in requests])
        self.length_B[rows_b] = 0
        self.state_BS[rows_b] = 0.0
        self.active_B[rows_b] = True
        self._noise_3BL[:, rows_b] = uniform(
            self._seed,
            column([int(purpose) for purpose in _NOISES]).view(-1, 1, 1),
            column([request.epoch for request in requests]).view(1, -1, 1),
            column([request.sample_id for request in requests]).view(1, -1, 1),
            column([request.response_index for request in requests]).view(1, -1, 1),
            torch.arange(self._cap, device=self._device).view(1, 1, -1),
            self._device,
        )

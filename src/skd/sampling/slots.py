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

__all__ = ["Block", "Places", "Request", "Slots"]

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
    teacher_prompt: Tensor
    """What the teacher reads in its place: the same tensor, unless the teacher has a prompt of its own."""
    sample_id: int
    response_index: int
    epoch: int

    @cached_property
    def prompt_length(self) -> int:
        """P."""
        return len(self.prompt)


@dataclass(frozen=True)
class Places:
    """Where the next G tokens of every row will stand, and the noise that belongs there."""

    position_BG: Tensor
    """int64: index in the response."""
    draft_noise_BG: Tensor
    """float64 uniforms, as the two below."""
    accept_noise_BG: Tensor
    replace_noise_BG: Tensor
    num_keys: int
    """Cache positions that the student's longest row will have used."""
    teacher_num_keys: int
    """Likewise the teacher's, which may have prompts of its own."""


@dataclass(frozen=True)
class Filled:
    """Prompts without their last tokens, int64 [T] on the CPU, for the slots ``rows``."""

    rows: list[int]
    student: list[Tensor]
    teacher: list[Tensor]


@dataclass
class Front:
    """Where one model stands in every row: the token that it is fed next, and the cache position of that token."""

    cursor_B: Tensor
    pending_B: Tensor

    def start(self, rows_b: Tensor, prompts: Sequence[Tensor]) -> list[Tensor]:
        """Stand before the last token of each prompt; returns what is to be in the cache already: b tensors [T]."""
        device = self.cursor_B.device
        last_b = torch.tensor([len(ids) - 1 for ids in prompts], device=device)
        self.cursor_B = self.cursor_B.index_copy(0, rows_b, last_b)
        # Not in place: what was pending before is shared with the other model.
        self.pending_B = self.pending_B.index_copy(0, rows_b, torch.stack([ids[-1] for ids in prompts]).to(device))
        return [ids[:-1] for ids in prompts]

    def advance(self, count_B: Tensor, pending_B: Tensor) -> None:
        """Move on by what was committed."""
        self.cursor_B = self.cursor_B + count_B
        self.pending_B = pending_B

    def keep_rows(self, rows_b: Tensor) -> None:
        """Shrink to ``rows_b``, in that order."""
        self.cursor_B, self.pending_B = self.cursor_B[rows_b], self.pending_B[rows_b]


@dataclass(frozen=True)
class Block:
    """G tokens of every row as one round wrote them; ``count_B`` of them can be committed."""

    places: Places
    ids_BG: Tensor
    author_BG: Tensor
    """uint8."""
    count_B: Tensor
    """int64: tokens before the first replacement, and that one."""
    finite: dict[int, Tensor]
    """Author -> bool [B]: whether that model's hidden states were finite; only of the models that ran."""
    evidence_BGD: Tensor | None = None
    student_logp_BG: Tensor | None = None
    state_BGS: Tensor | None = None
    """Row state after each token; None leaves it unchanged."""


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
        self.fixed_shapes = False
        """Neither drop rows nor shorten the last block."""
        self.length_B = torch.zeros(size, dtype=torch.int64, device=device)
        self.student = self.teacher = Front(self.length_B.clone(), self.length_B.clone())
        if any(request.teacher_prompt is not request.prompt for request in requests):
            self.teacher = Front(self.length_B.clone(), self.length_B.clone())
        self.active_B = torch.zeros(size, dtype=torch.bool, device=device)
        # Blocks are written whole and cut by the length, so a row needs room for one block beyond the cap.
        self.ids_BW = torch.zeros(size, cap + block, dtype=torch.int64, device=device)
        self.authors_BW = torch.zeros(size, cap + block, dtype=torch.uint8, device=device)
        self.evidence_BWD: Tensor | None = None
        self.student_logp_BW: Tensor | None = None
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

    def next_places(self, block: int) -> Places:
        """Where the next ``block`` tokens of every row will stand; fewer where no row has room for so many."""
        if not self.fixed_shapes:
            block = min(block, self._cap - min(self.lengths[slot] for slot, held in enumerate(self.held) if held))
        position_BG = self.length_B.unsqueeze(1) + torch.arange(block, device=self._device)
        noise_3BG = self._noise_3BL.gather(2, position_BG.clamp(max=self._cap - 1).expand(len(_NOISES), -1, -1))
        draft_BG, accept_BG, replace_BG = noise_3BG
        num_keys, teacher_num_keys = self._num_keys()
        return Places(position_BG, draft_BG, accept_BG, replace_BG, num_keys + block, teacher_num_keys + block)

    def refill(self) -> Filled | None:
        """Give idle slots to waiting responses, and say what is to be in the caches for them."""
        idle = [slot for slot, request in enumerate(self.held) if request is None]
        if not self._waiting or not idle or (self.num_active and len(idle) * _REFILL_SHARE < len(self.held)):
            return None
        taken, self._waiting = self._waiting[: len(idle)], self._waiting[len(idle) :]
        slots = idle[: len(taken)]
        for slot, request in zip(slots, taken, strict=True):
            self.held[slot], self.lengths[slot] = request, 0
        rows_b = torch.tensor(slots, device=self._device)
        self._start(rows_b, taken)
        student = teacher = self.student.start(rows_b, [request.prompt for request in taken])
        if self.teacher is not self.student:
            teacher = self.teacher.start(rows_b, [request.teacher_prompt for request in taken])
        return Filled(slots, student, teacher)

    def shrink(self) -> Tensor | None:
        """Drop finished rows once nothing waits and half are done; returns the rows [b] that stay, else None."""
        if self.fixed_shapes or self._waiting or self.num_active * 2 > len(self.held) or self.num_active == 0:
            return None
        kept = [slot for slot, request in enumerate(self.held) if request is not None]
        self.held, self.lengths = [self.held[slot] for slot in kept], [self.lengths[slot] for slot in kept]
        rows_b = torch.tensor(kept, device=self._device)
        for name, values in vars(self).items():
            if isinstance(values, Tensor):
                setattr(self, name, values[:, rows_b] if name == "_noise_3BL" else values[rows_b])
        for front in self._fronts():
            front.keep_rows(rows_b)
        return rows_b

    def write(self, block: Block) -> None:
        """Write a block after what is there. Nothing is committed until ``advance`` moves the lengths."""
        index_BG = block.places.position_BG
        self.ids_BW.scatter_(1, index_BG, block.ids_BG)
        self.authors_BW.scatter_(1, index_BG, block.author_BG)
        self.student_logp_BW = self._written(self.student_logp_BW, index_BG, block.student_logp_BG)
        self.evidence_BWD = self._written(self.evidence_BWD, index_BG, block.evidence_BGD)

    def _written(self, buffer: Tensor | None, index_BG: Tensor, values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        if buffer is None:
            buffer = values.new_zeros(*self.ids_BW.shape, *values.shape[2:])
        return buffer.scatter_(1, index_BG.view(*index_BG.shape, *[1] * (values.dim() - 2)).expand_as(values), values)

    def advance(self, block: Block, count_B: Tensor, ended_B: Tensor) -> None:
        """Commit the first ``count_B`` tokens of what was written; the last one becomes the pending token.

        Rows without a response take anything here: they start anew when they get one.
        """
        last_B1 = (count_B - 1).clamp(min=0).unsqueeze(1)
        pending_B = block.ids_BG.gather(1, last_B1).squeeze(1)
        for front in self._fronts():
            front.advance(count_B, pending_B)
        if block.state_BGS is not None:
            self.state_BS = block.state_BGS.take_along_dim(last_B1.unsqueeze(-1), dim=1).squeeze(1)
        self.length_B = self.length_B + count_B
        self.active_B = self.active_B & ~ended_B & (self.length_B < self._cap)

    def release(self, slot: int) -> Request:
        """Take a finished response out of its slot."""
        request = self.held[slot]
        assert request is not None
        self.held[slot] = None
        return request

    def _fronts(self) -> list[Front]:
        """One or two: both models stand at the same token of the same prompt, unless the teacher has its own."""
        return [self.student] if self.teacher is self.student else [self.student, self.teacher]

    def _num_keys(self) -> tuple[int, int]:
        rows = [(held, length) for held, length in zip(self.held, self.lengths, strict=True) if held is not None]
        student = max(held.prompt_length - 1 + length for held, length in rows)
        if self.teacher is self.student:
            return student, student
        return student, max(len(held.teacher_prompt) - 1 + length for held, length in rows)

    def _start(self, rows_b: Tensor, requests: Sequence[Request]) -> None:
        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=self._device)

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

"""One model of the pair while it samples: its cursor cache, its head, and the warp its tokens are drawn through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skd.sampling.cache import CursorModel
from skd.sampling.prompts import PromptReader, PromptTokens
from skd.sampling.slots import Front, Places, Slots
from skd.sampling.warp import Warp, draw
from skd.types import Evidence, Head

__all__ = ["Judged", "LocalJudge", "Passes", "Writer", "Written", "finite_rows", "read", "step"]


@dataclass(frozen=True)
class Written:
    """G tokens that one model wrote in a row."""

    ids_BG: Tensor
    """int64."""
    hidden_BGD: Tensor
    """The last hidden state that each token came from, or what else is kept of it as evidence."""
    logits: list[Tensor]
    """float32 raw logits [B, V] that each token came from, G of them; empty unless they were to be kept."""

    def logp(self, ids_BG: Tensor) -> Tensor:
        """Raw log-probs [B, G] of ``ids_BG`` in the places of the tokens; needs the logits."""
        columns = [
            logits_BV.gather(-1, ids_B1) - logits_BV.logsumexp(-1, keepdim=True)
            for logits_BV, ids_B1 in zip(self.logits, ids_BG.split(1, dim=1), strict=True)
        ]
        return torch.cat(columns, dim=1)


@dataclass(frozen=True)
class Judged:
    """What the teacher thinks at each token of a block."""

    logits_BGV: Tensor
    """float32 raw logits."""
    kept_BGE: Tensor
    """What is kept as evidence: the last hidden states, or numbers that ``Judge.evidence`` understands."""
    finite_B: Tensor
    """bool: whether the teacher's output was finite."""


def step(
    body: CursorModel, head: Head, warp: Warp, ids_B1: Tensor, cursor_B: Tensor, num_keys: int, noise_B1: Tensor
) -> tuple[Tensor, ...]:
    """Feed one token and draw the next: its id [B, 1], last hidden state [B, 1, D] and raw logits [B, 1, V]."""
    hidden_B1D, logits_B1V = read(body, head, ids_B1, cursor_B, num_keys)
    return draw(warp.log_probs(logits_B1V), noise_B1), hidden_B1D, logits_B1V


def read(body: CursorModel, head: Head, ids_BG: Tensor, cursor_B: Tensor, num_keys: int) -> tuple[Tensor, ...]:
    """Feed G tokens in one forward: last hidden states [B, G, D] and raw logits [B, G, V]."""
    hidden_BGD = body.forward(ids_BG, cursor_B, num_keys)
    return hidden_BGD, head.logits(hidden_BGD)


@dataclass(frozen=True)
class Passes:
    """The two functions above as they are, or compiled."""

    step: Callable[..., tuple[Tensor, ...]] = step
    read: Callable[..., tuple[Tensor, ...]] = read


@dataclass(frozen=True)
class Writer:
    """Writes tokens in a row, or reads a block that the other model wrote."""

    body: CursorModel
    head: Head
    warp: Warp
    prompts: PromptReader
    passes: Passes = Passes()

    def write(self, front: Front, noise_BG: Tensor, num_keys: int, keep_logits: bool) -> Written:
        """Draw G tokens one after the other, each fed for the next; the last is left pending."""
        ids, hidden, kept = [front.pending_B.unsqueeze(1)], [], []
        num_keys = self.body.num_keys(num_keys)
        for offset, noise_B1 in enumerate(noise_BG.split(1, dim=1)):
            ids_B1, hidden_B1D, logits_B1V = self.passes.step(
                self.body, self.head, self.warp, ids[-1], front.cursor_B + offset, num_keys, noise_B1
            )
            ids.append(ids_B1)
            hidden.append(hidden_B1D)
            if keep_logits:
                kept.append(logits_B1V.squeeze(1))
        return Written(torch.cat(ids[1:], dim=1), torch.cat(hidden, dim=1), kept)

    def read(self, front: Front, ids_BG: Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
        """Feed the pending token and those that follow it, [B, G - 1], in one forward.

        Returns the last hidden states [B, G, D] and the raw logits [B, G, V].
        """
        fed_BG = torch.cat([front.pending_B.unsqueeze(1), ids_BG], dim=1)
        hidden_BGD, logits_BGV = self.passes.read(
            self.body, self.head, fed_BG, front.cursor_B, self.body.num_keys(num_keys)
        )
        return hidden_BGD, logits_BGV


@dataclass(frozen=True)
class LocalJudge:
    """The teacher as a model in this process; see ``skd.sampling.judge.Judge``."""

    writer: Writer

    @property
    def warp(self) -> Warp:
        """That of the writer."""
        return self.writer.warp

    def prefill(self, rows: Sequence[int], prompts: Sequence[Tensor]) -> PromptTokens:
        """Into the cache."""
        return self.writer.prompts.fill(rows, prompts)

    def keep_rows(self, rows_b: Tensor) -> None:
        """In the cache."""
        self.writer.prompts.keep_rows(rows_b)

    def read(self, slots: Slots, ids_BG: Tensor, places: Places) -> Judged:
        """One forward over the pending token and all drafts but the last."""
        hidden_BGD, logits_BGV = self.writer.read(slots.teacher, ids_BG[:, :-1], places.teacher_num_keys)
        return Judged(logits_BGV, hidden_BGD, finite_rows(hidden_BGD))

    def write(self, slots: Slots, noise_BG: Tensor, places: Places) -> Written:
        """One forward per token."""
        return self.writer.write(slots.teacher, noise_BG, places.teacher_num_keys, keep_logits=False)

    def evidence(self, kept: Sequence[Tensor], ids: Sequence[Tensor]) -> Evidence:
        """The hidden states."""
        return list(kept)


def finite_rows(hidden_BGD: Tensor) -> Tensor:
    """Whether all hidden states of each row are [B]. The largest shows it, ten times faster than one look at each."""
    return hidden_BGD.abs().amax((1, 2)).isfinite()

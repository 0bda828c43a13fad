"""The pieces of the speed of light: a step that holds nothing but the models' own forwards and one backward.

Forwards with few rows have packed weights, as the sampler's have.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import kl_div, linear, log_softmax
from transformers import PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from benchmarks.speed.protocol import Stopwatch
from skd.sampling.execution import PACKED_MB
from skd.sampling.packed import packed_products

__all__ = ["BLOCKS", "Pieces", "measured_pieces"]

BLOCKS = (1, 2, 3, 4, 5, 8)


@dataclass(frozen=True)
class Pieces:
    """CPU seconds for a batch; ``benchmarks.speed.tables.light`` puts them together."""

    batch: int
    length: int
    prefill: float
    """Of the prompts, both models."""
    draft: float
    """One token of the student."""
    judge: dict[int, float]
    """By the number of tokens that the teacher reads."""
    train: float
    """Forward and backward of the student, with the loss."""
    optimiser: float


def measured_pieces(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    optimizer: Any,
    batch: int,
    prompt: int,
    length: int,
    repeats: int,
) -> Pieces:
    """Measure each piece, ``repeats`` times, in the middle of a response; medians."""
    vocab = student.config.vocab_size
    ids_BT = torch.randint(3, vocab, (batch, prompt + length))
    reading = _Reader(teacher, ids_BT, prompt), _Reader(student, ids_BT, prompt)

    def median(run: Callable[[], Any]) -> float:
        return statistics.median(_seconds(run) for _ in range(repeats + 1))

    with torch.inference_mode(), packed_products((teacher, student), PACKED_MB):
        prefill = sum(median(reader.prefill) for reader in reading)
        judge = {g: median(lambda g=g: reading[0].read(g)) for g in BLOCKS}  # type: ignore[misc]
        draft = median(lambda: reading[1].read(1))
        teacher_hidden = teacher.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    teacher_hidden = teacher_hidden.clone()
    train = median(lambda: _train(student, teacher, teacher_hidden, ids_BT, prompt))
    optimiser = median(optimizer.step)
    optimizer.zero_grad(set_to_none=True)
    return Pieces(batch, length, prefill, draft, judge, train, optimiser)


class _Reader:
    """One model in the middle of a response: it reads g tokens with half of the response behind it."""

    def __init__(self, model: PreTrainedModel, ids_BT: torch.Tensor, prompt: int) -> None:
        self.model, self.ids, self.prompt = model, ids_BT, prompt
        self.middle = (prompt + ids_BT.shape[1]) // 2
        self.cache = StaticCache(config=model.config, max_cache_len=self.middle + max(BLOCKS))

    def prefill(self) -> None:
        self.model.base_model(input_ids=self.ids[:, : self.prompt], use_cache=False)

    def read(self, count: int) -> torch.Tensor:
        position = torch.arange(self.middle, self.middle + count)
        keys = torch.arange(self.middle + max(BLOCKS))
        mask = (keys <= position.unsqueeze(1)).expand(len(self.ids), 1, -1, -1)
        for layer in self.cache.layers:
            if isinstance(layer, StaticLayer):
                layer.cumulative_length.fill_(self.middle)
        hidden = self.model.base_model(
            input_ids=self.ids[:, self.middle : self.middle + count],
            attention_mask=mask,
            position_ids=position.unsqueeze(0),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits


def _train(
    student: PreTrainedModel, teacher: PreTrainedModel, teacher_hidden: torch.Tensor, ids_BT: torch.Tensor, prompt: int
) -> None:
    hidden = student.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    student_logp, teacher_logp = (
        log_softmax(linear(states[:, prompt - 1 : -1].flatten(0, 1), model.lm_head.weight).float(), dim=-1)
        for states, model in ((hidden, student), (teacher_hidden, teacher))
    )
    kl_div(student_logp, teacher_logp.detach(), reduction="sum", log_target=True).div(len(student_logp)).backward()


def _seconds(run: Callable[[], Any]) -> float:
    watch = Stopwatch()
    run()
    return watch.read()["cpu"]

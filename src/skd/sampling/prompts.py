"""Prompts into the cache of a model that samples: each is read once, however many rows want it.

Rows that hold the same prompt share one reading of it. A frozen teacher's keys and values can also be kept for the
steps and epochs to come, in a ``PromptCache``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from skd.errors import ConfigError, Problem
from skd.sampling.cache import CursorModel

__all__ = ["KeptPrompts", "PromptCache", "PromptReader", "PromptTokens"]


@dataclass(frozen=True)
class PromptTokens:
    """Prompt tokens that went into a cache."""

    read: int = 0
    """By a forward of the model."""
    reused: int = 0
    """Copied from an earlier reading."""

    def __add__(self, other: PromptTokens) -> PromptTokens:
        return PromptTokens(self.read + other.read, self.reused + other.reused)


@dataclass
class KeptPrompts:
    """What one model has read: its keys and values [T, heads, head size] of each layer, by prompt."""

    states: dict[bytes, list[Tensor]] = field(default_factory=dict)
    num_bytes: int = 0


class PromptCache:
    """Keys and values of prompts as frozen teachers read them, in the host's memory.

    Prompts stay until the cache goes; once ``megabytes`` are full, no more are added. Over epochs that is better than
    to drop the least recently used one, which is the one that comes next. Raises ConfigError for a negative budget.
    """

    def __init__(self, megabytes: float) -> None:
        if not 0 <= megabytes < float("inf"):
            found = f"is {megabytes}; it must be 0 or more and finite"
            raise ConfigError(Problem("SKD-C07", "megabytes", found, "write 0 to keep no prompt"))
        self._budget = int(megabytes * 1e6)
        self._models: WeakKeyDictionary[nn.Module, KeptPrompts] = WeakKeyDictionary()

    @property
    def num_bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(kept.num_bytes for kept in self._models.values())

    def get(self, model: nn.Module, prompt: bytes) -> list[Tensor] | None:
        """What ``model`` made of a prompt; None where that is not kept."""
        kept = self._models.get(model)
        return None if kept is None else kept.states.get(prompt)

    def keep(self, model: nn.Module, prompt: bytes, states: list[Tensor]) -> None:
        """Keep what ``model``, whose weights never change, made of a prompt, if there is room."""
        size = sum(state.numel() * state.element_size() for state in states)
        if self.num_bytes + size > self._budget:
            return
        kept = self._models.setdefault(model, KeptPrompts())
        # A copy on the host: what was given is a view of a whole row.
        kept.states[prompt] = [state.to("cpu", copy=True) for state in states]
        kept.num_bytes += size


class PromptReader:
    """Puts prompts into the rows of one model's cache.

    Without ``kept`` the prompts that are new are read together. With it each is read alone: what a forward makes of a
    prompt depends, by rounding, on those beside it, and what is kept must be what would be read now.
    """

    def __init__(self, body: CursorModel, kept: PromptCache | None = None) -> None:
        self._body, self._kept = body, kept
        self._rows: dict[int, bytes] = {}

    def fill(self, rows: Sequence[int], prompts: Sequence[Tensor]) -> PromptTokens:
        """Put ``prompts``, int64 [T] on the CPU, into ``rows`` from position 0."""
        keys = [prompt.numpy().tobytes() for prompt in prompts]
        # A row holds its prompt until it gets another one, whether or not its response has ended.
        held = {prompt: row for row, prompt in self._rows.items()}
        new: dict[bytes, tuple[int, Tensor]] = {}
        early, late = [], []
        for row, key, prompt in zip(rows, keys, prompts, strict=True):
            if key in held:
                early.append((held[key], row))
            elif key in new:
                late.append((new[key][0], row))
            else:
                new[key] = row, prompt
        longest = max(map(len, prompts), default=0)
        self._copy(early, longest)
        read = self._read_together(new) if self._kept is None else self._read_alone(self._kept, new)
        self._copy(late, longest)
        self._rows.update(zip(rows, keys, strict=True))
        return PromptTokens(read, sum(map(len, prompts)) - read)

    def keep_rows(self, rows_b: Tensor) -> None:
        """Shrink the cache to ``rows_b``, in that order."""
        self._rows = {place: self._rows[row] for place, row in enumerate(rows_b.tolist()) if row in self._rows}
        self._body.keep_rows(rows_b)

    def _copy(self, pairs: Sequence[tuple[int, int]], length: int) -> None:
        if pairs and length:
            self._body.copy_rows([source for source, _ in pairs], [target for _, target in pairs], length)

    def _read_together(self, new: Mapping[bytes, tuple[int, Tensor]]) -> int:
        prompts = [prompt for _, prompt in new.values()]
        if prompts:
            ids_bT = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
            self._body.prefill(ids_bT, [row for row, _ in new.values()])
        return sum(map(len, prompts))

    def _read_alone(self, kept: PromptCache, new: Mapping[bytes, tuple[int, Tensor]]) -> int:
        read = 0
        for key, (row, prompt) in new.items():
            if not len(prompt):
                continue
            if (states := kept.get(self._body.module, key)) is not None:
                self._body.write_row(row, states)
                continue
            self._body.prefill(prompt.unsqueeze(0), [row])
            read += len(prompt)
            kept.keep(self._body.module, key, self._body.read_row(row, len(prompt)))
        return read

"""A key-value cache with one write cursor per row, and the forward pass that uses it.

A row is a cursor: keys and values live in one pre-allocated buffer per layer, every row writes at its own position,
and rejecting tokens is writing over them. Nothing is copied, cropped or padded on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

__all__ = ["AttentionForm", "CursorCache", "CursorModel", "context_length", "settle_attention"]

_PROBE_WINDOW = 8
_KEYS_STEP = 8
"""Attention looks at a multiple of this many positions, so that few shapes occur."""


@dataclass(frozen=True)
class AttentionForm:
    """How a model family wants a ready-made attention mask."""

    per_layer_type: bool
    """A dict by layer type (Gemma 2/3, Qwen 2/3) instead of one tensor for all layers."""
    window: int | None
    """Sliding window of the layers that have one; in the one-tensor form, of all layers."""

    def masks(self, position_BG: Tensor, num_keys: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Additive masks [B, 1, G, S] for queries at ``position_BG`` over the first ``num_keys`` cache positions."""
        key_S = torch.arange(num_keys, device=position_BG.device)
        query_BG1 = position_BG.unsqueeze(-1)
        future = key_S > query_BG1
        unseen = future if self.window is None else future | (key_S <= query_BG1 - self.window)
        if not self.per_layer_type:
            return _additive(unseen, dtype)
        full = _additive(future, dtype)
        return {
            "full_attention": full,
            "sliding_attention": full if unseen is future else _additive(unseen, dtype),
        }


def _additive(unseen_BGS: Tensor, dtype: torch.dtype) -> Tensor:
    # Eager attention adds its mask; SDPA takes either kind, but would turn a boolean one into this in every layer.
    mask = torch.zeros(unseen_BGS.shape, dtype=dtype, device=unseen_BGS.device)
    return mask.masked_fill_(unseen_BGS, torch.finfo(dtype).min).unsqueeze(1)


class CursorCache(Cache):
    """Keys and values [B, capacity, heads, head size] per layer, allocated at the first write.

    transformers hands ``update`` no positions, so the ones of the running forward are set on the cache before it.
    Sliding-window layers keep full-length keys and values; the window is in the mask. That way a row can be rewound
    across its border.
    """

    def __init__(self, num_rows: int, capacity: int, *, static: bool = False) -> None:
        super().__init__(layers=[])
        self.num_rows, self.capacity = num_rows, capacity
        self._static = static
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._rows: Tensor | None = None
        self._position: Tensor | None = None
        self._num_keys = 0

    def at_cursors(self, position_BG: Tensor, num_keys: int) -> None:
        """The next forward writes row b's tokens at ``position_BG[b]`` and sees the first ``num_keys`` positions."""
        self._rows = torch.arange(self.num_rows, device=position_BG.device).unsqueeze(1)
        self._position, self._num_keys = position_BG, num_keys

    def at_start(self, rows_b: Tensor) -> None:
        """The next forward fills the rows ``rows_b`` from position 0 and sees only what it writes."""
        self._rows, self._position = rows_b, None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write at the cursors; return what the attention of this forward looks at."""
        if layer_idx == len(self.keys):
            self.keys.append(self._allocate(key_states.transpose(1, 2)))
            self.values.append(self._allocate(value_states.transpose(1, 2)))
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        if self._position is None:
            length = key_states.shape[2]
            keys[self._rows, :length] = key_states.transpose(1, 2)
            values[self._rows, :length] = value_states.transpose(1, 2)
            return key_states, value_states
        keys[self._rows, self._position] = key_states.transpose(1, 2)
        values[self._rows, self._position] = value_states.transpose(1, 2)
        return keys[:, : self._num_keys].transpose(1, 2), values[:, : self._num_keys].transpose(1, 2)

    def copy_rows(self, from_b: Tensor, to_b: Tensor, length: int) -> None:
        """The first ``length`` positions of the rows ``from_b`` in the rows ``to_b``, too."""
        for states in (*self.keys, *self.values):
            states[to_b, :length] = states[from_b, :length]

    def read_row(self, row: int, length: int) -> list[Tensor]:
        """The first ``length`` positions of a row: the keys of all layers, then their values."""
        return [states[row, :length] for states in (*self.keys, *self.values)]

    def write_row(self, row: int, states: Sequence[Tensor], device: torch.device) -> None:
        """Put what ``read_row`` gave into a row."""
        if not self.keys:
            space = [self._allocate(state.unsqueeze(0).to(device)) for state in states]
            self.keys, self.values = space[: len(space) // 2], space[len(space) // 2 :]
        for mine, state in zip((*self.keys, *self.values), states, strict=True):
            mine[row, : len(state)].copy_(state, non_blocking=True)

    def keep_rows(self, rows_b: Tensor) -> None:
        """Shrink to ``rows_b``, in that order."""
        self.num_rows = len(rows_b)
        self.keys = [keys.index_select(0, rows_b) for keys in self.keys]
        self.values = [values.index_select(0, rows_b) for values in self.values]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions come from the cursors, so no model may ask for one common length."""
        return 0

    def _allocate(self, states_BThs: Tensor) -> Tensor:
        # Zeros, not empty: a masked position still enters the product with weight 0, and 0 x NaN is NaN.
        space = states_BThs.new_zeros(self.num_rows, self.capacity, *states_BThs.shape[2:])
        if self._static:
            torch._dynamo.mark_static_address(space)
        return space


def _to_next_step(length: int) -> int:
    return -(-length // _KEYS_STEP) * _KEYS_STEP


class CursorModel:
    """One model with its cursor cache: ids in, last hidden states out.

    ``rounded``: the number of positions that attention looks at where so many are needed.
    """

    def __init__(
        self,
        module: nn.Module,
        form: AttentionForm,
        context: int,
        cache: CursorCache,
        rounded: Callable[[int], int] = _to_next_step,
    ) -> None:
        self.module, self._form, self._context, self._cache, self._rounded = module, form, context, cache, rounded
        weight = next(module.parameters())
        self._dtype, self._device = weight.dtype, weight.device

    def num_keys(self, needed: int) -> int:
        """How many positions a forward looks at; it sets the attention's cost, not its result."""
        return min(self._cache.capacity, self._rounded(needed))

    def forward(self, ids_BG: Tensor, cursor_B: Tensor, num_keys: int) -> Tensor:
        """Write ``ids_BG`` at the cursors and return the last hidden states [B, G, D].

        ``num_keys`` bounds every cursor plus G.
        """
        position_BG = cursor_B.unsqueeze(1) + torch.arange(ids_BG.shape[1], device=ids_BG.device)
        self._cache.at_cursors(position_BG, num_keys)
        return self._run(ids_BG, position_BG, num_keys)

    def prefill(self, ids_bT: Tensor, rows: Sequence[int]) -> None:
        """Fill ``rows`` with right-padded prompts; what stands after a prompt's end is never looked at."""
        count, length = ids_bT.shape
        if length == 0:
            return
        self._cache.at_start(self._on_device(rows))
        position_bT = torch.arange(length, device=self._device).expand(count, length)
        self._run(ids_bT.to(self._device), position_bT, length)

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Put what stands at the first ``length`` positions of some rows into others, too."""
        self._cache.copy_rows(self._on_device(sources), self._on_device(targets), length)

    def read_row(self, row: int, length: int) -> list[Tensor]:
        """Keys and values [length, heads, head size] of a row, of all layers; views."""
        return self._cache.read_row(row, length)

    def write_row(self, row: int, states: Sequence[Tensor]) -> None:
        """Put what ``read_row`` gave of the same model into a row."""
        self._cache.write_row(row, states, self._device)

    def keep_rows(self, rows_b: Tensor) -> None:
        """Shrink to ``rows_b``, in that order."""
        self._cache.keep_rows(rows_b)

    def _on_device(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, device=self._device)

    def _run(self, ids_BG: Tensor, position_BG: Tensor, num_keys: int) -> Tensor:
        output = self.module(
            input_ids=ids_BG,
            attention_mask=self._form.masks(position_BG, num_keys, self._dtype),
            # Drafts past the context are thrown away, but a learned position table must not be read beyond its end.
            position_ids=position_BG.clamp(max=self._context - 1),
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


def settle_attention(model: PreTrainedModel) -> AttentionForm | None:
    """Find the mask form under which the cursor cache reproduces the model's own forward; None when none does.

    The probe rewinds, has rows of unequal length, and crosses the sliding window, which is narrowed for it.
    """
    config = model.config.get_text_config()
    window: int | None = getattr(config, "sliding_window", None)
    dicts = [True, False] if getattr(config, "layer_types", None) else [False]
    for per_layer_type in dicts:
        form = AttentionForm(per_layer_type, window)
        if window is None or window <= _PROBE_WINDOW:
            reproduced = _reproduces(model, form)
        else:
            with _narrowed(config):
                reproduced = _reproduces(model, replace(form, window=_PROBE_WINDOW))
        if reproduced:
            return form
    return None


@contextmanager
def _narrowed(config: PreTrainedConfig) -> Iterator[None]:
    """A short sliding window for the length of a block. Models read it anew in every forward, so a few tokens cross it
    and show whether both masks mean the same by it, however long the real one is."""
    window = config.sliding_window
    config.sliding_window = _PROBE_WINDOW
    try:
        yield
    finally:
        config.sliding_window = window


def context_length(model: PreTrainedModel) -> int:
    """Positions the model was built for; a very large number when its config names no limit."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**31 - 1)


@torch.no_grad()
def _reproduces(model: PreTrainedModel, form: AttentionForm) -> bool:
    context, device = context_length(model), model.device
    length = min(context, _PROBE_WINDOW + 4)
    block = min(3, length)
    generator = torch.Generator().manual_seed(0)
    vocab_size = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index]
    ids_BT = torch.randint(vocab_size, (2, length), generator=generator).to(device)
    wrong_BG = torch.randint(vocab_size, (2, block), generator=generator).to(device)
    start_B = torch.tensor([length - block, max(length - block - 2, 0)], device=device)
    index_BG = start_B.unsqueeze(1) + torch.arange(block, device=device)
    cursor = CursorModel(model.base_model, form, context, CursorCache(num_rows=2, capacity=length))
    try:
        cursor.prefill(ids_BT[:, : length - block], range(2))
        cursor.forward(wrong_BG, start_B, length)
        rewound_BGD = cursor.forward(ids_BT.gather(1, index_BG), start_B, length)
    except (AttributeError, TypeError, IndexError, KeyError, RuntimeError, ValueError):
        # A family that wants the other mask form fails in a way of its own.
        return False
    whole_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    truth_BGD = whole_BTD.gather(1, index_BG.unsqueeze(-1).expand(-1, -1, whole_BTD.shape[-1]))
    error_BG = (rewound_BGD - truth_BGD).float().norm(dim=-1) / truth_BGD.float().norm(dim=-1)
    if whole_BTD.dtype == torch.float32:
        return bool(error_BG.amax() <= 1e-3)
    # Row by row the median, because in half precision an expert near its routing border may flip a position.
    return bool(error_BG.median(dim=1).values.amax() <= 5e-2) and bool(error_BG.isfinite().all())

"""How a loss over N tokens is cut so that it fits a memory budget and, on a CPU, the processor's cache."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_BUDGET_BYTES", "Cut"]

DEFAULT_BUDGET_BYTES = 512 * 2**20

_ROWS_OF_A_TILE = 16
"""Float32 rows [V] alive at once per token, at the peak of a forward and backward of the divergences; measured."""
_ROWS_OF_A_CHUNK = 2
"""The two heads' products, per token; the student's becomes the gradient."""
_CHUNK = 128
"""Tokens from which on the products with the heads gain nothing more from a longer chunk on a CPU; measured."""
_NUMBERS_OF_A_TILE = 2**18
"""1 MB of float32, what a core's own cache holds; measured."""


@dataclass(frozen=True)
class Cut:
    """Tokens taken at once."""

    chunk: int
    """By the products with the heads."""
    tile: int
    """By the loss between them; at most a chunk."""

    @staticmethod
    def of(vocab_size: int, device_type: str, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> Cut:
        """What fits the budget, at least one token each. An accelerator gets no tiles: there every launch costs."""
        rows = budget_bytes // (4 * vocab_size)
        if device_type != "cpu":
            chunk = max(1, rows // (_ROWS_OF_A_TILE + _ROWS_OF_A_CHUNK))
            return Cut(chunk, chunk)
        tile = max(1, min(_NUMBERS_OF_A_TILE // vocab_size, rows // (2 * _ROWS_OF_A_TILE)))
        return Cut(max(tile, min(_CHUNK, (rows - tile * _ROWS_OF_A_TILE) // _ROWS_OF_A_CHUNK)), tile)

    def num_bytes(self, vocab_size: int, num_tokens: int, *, with_teacher: bool) -> int:
        """Most memory of the [tokens, V] tensors for ``num_tokens`` tokens, in float32."""
        products = (_ROWS_OF_A_CHUNK if with_teacher else 1) * min(self.chunk, num_tokens)
        return 4 * vocab_size * (products + _ROWS_OF_A_TILE * min(self.tile, num_tokens))

"""A model as the cost model sees it: how many weights are multiplied, and how wide a token is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skd.check.memory import inner_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["BYTES", "Shape"]

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Shape:
    """Sizes of a dense decoder."""

    layers: int
    hidden: int
    inner: int
    """Width of the feed-forward net."""
    heads: int
    key_heads: int
    head_size: int
    vocab_size: int
    body: int
    """Weights of the layers."""
    trained: int
    """Weights that are trained when this is the student."""
    tied: bool = True
    """The head is the embedding."""

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.hidden * self.vocab_size

    @property
    def num_weights(self) -> int:
        """All of them."""
        return self.body + self.head * (1 if self.tied else 2)

    def multiplied(self, dtype: str) -> int:
        """Bytes of the weights that a token is multiplied with."""
        return (self.body + self.head) * BYTES[dtype]

    @property
    def keys_per_token(self) -> int:
        """Numbers that one layer's cache holds for a token."""
        return 2 * self.key_heads * self.head_size

    @property
    def moved_per_token(self) -> int:
        """Numbers that the operations of one layer between its products read or write for a token.

        Counted in a Llama layer without fused kernels: two norms of seven passes and two residual sums of three,
        rotation of queries and keys, the activation and the product with its other half.
        """
        queries_and_keys = (self.heads + self.key_heads) * self.head_size
        return 20 * self.hidden + 9 * queries_and_keys + 5 * self.inner + 2 * self.keys_per_token

    @staticmethod
    def llama(
        *, layers: int, hidden: int, inner: int, heads: int, key_heads: int, vocab_size: int, tied: bool, size: int = 0
    ) -> Shape:
        """From the numbers of a Llama or Qwen config; ``size`` of a head is hidden / heads where it is 0."""
        size = size or hidden // heads
        layer = hidden * size * (2 * heads + 2 * key_heads) + 3 * hidden * inner
        every = layers * layer + hidden * vocab_size * (1 if tied else 2)
        return Shape(layers, hidden, inner, heads, key_heads, size, vocab_size, layers * layer, every, tied)

    @staticmethod
    def of(model: PreTrainedModel) -> Shape:
        """Of a model on any device, meta too."""
        config = model.config.get_text_config()
        heads = int(config.num_attention_heads)
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        table = {id(layer.weight) for layer in (head, embedding) if layer is not None}
        parameters = list(model.parameters())
        return Shape(
            layers=int(config.num_hidden_layers),
            hidden=int(config.hidden_size),
            inner=inner_size(config),
            heads=heads,
            key_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            vocab_size=int(config.vocab_size),
            body=sum(p.numel() for p in parameters if p.dim() > 1 and id(p) not in table),
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            tied=len(table) < 2,
        )

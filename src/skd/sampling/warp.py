"""From logits to the distribution that a token is drawn from, and the draw itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem

__all__ = ["CutWarp", "Warp", "draw", "kth_largest", "nucleus_threshold"]

_BLOCK = 512
_LIKELY_NUCLEUS = 256


@dataclass(frozen=True)
class Warp:
    """Temperature, then nucleus (top-p) truncation. The defaults leave a distribution as it is.

    Temperature 0 is the one-hot distribution at the most probable id (the lowest one on a tie), so that greedy decoding
    is a distribution like any other. ``top_p`` keeps the smallest set of most probable ids whose mass reaches it, ids
    that tie at its border included (Holtzman et al., ICLR 2020). Raises ConfigError for a value outside its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            found = f"is {self.temperature}; it must be 0 or more and finite"
            raise ConfigError(Problem("SKD-C07", "temperature", found, "write 0 for greedy, 1 for the model's own"))
        if not 0.0 < self.top_p <= 1.0:
            found = f"is {self.top_p}; it must be in (0, 1]"
            raise ConfigError(Problem("SKD-C07", "top_p", found, "write 1 to cut nothing"))

    def log_probs(self, logits: Tensor) -> Tensor:
        """Drawn-from log-probs [..., V], float32 and normalised, of raw logits [..., V]."""
        if self.temperature == 0.0:
            one_hot = torch.full_like(logits, float("-inf"), dtype=torch.float32)
            return one_hot.scatter_(-1, logits.argmax(-1, keepdim=True), 0.0)
        logits = logits.float() if self.temperature == 1.0 else logits.float() / self.temperature
        logp = torch.log_softmax(logits, dim=-1)
        if self.top_p == 1.0:
            return logp
        outside = logp < nucleus_threshold(logp, self.top_p)
        return torch.log_softmax(logp.masked_fill(outside, float("-inf")), dim=-1)


@dataclass(frozen=True)
class CutWarp(Warp):
    """A warp of the ``k`` most probable ids alone, which are all that a server tells of its distribution."""

    k: int = 64

    def log_probs(self, logits: Tensor) -> Tensor:
        """As Warp.log_probs, of logits that are -inf outside the ``k`` largest; ids that tie with the last stay."""
        return super().log_probs(logits.masked_fill(logits < kth_largest(logits, self.k), float("-inf")))


def nucleus_threshold(logp: Tensor, mass: float) -> Tensor:
    """Log-prob [..., 1] of the least probable id in the smallest set of most probable ids that holds ``mass``."""
    # A partial sort nearly always suffices and is 30 times cheaper; on an accelerator the look at its mass would stall,
    # and in a compiled pass it would break the graph.
    looks = logp.device.type == "cpu" and not torch.compiler.is_compiling()
    if looks and logp.shape[-1] > _LIKELY_NUCLEUS:
        ordered = logp.topk(_LIKELY_NUCLEUS, dim=-1).values
        if bool((ordered.double().exp().sum(-1) > mass).all()):
            return _last_needed(ordered, mass)
    return _last_needed(logp.sort(dim=-1, descending=True).values, mass)


def _last_needed(ordered: Tensor, mass: float) -> Tensor:
    probs = ordered.double().exp()
    before = _running_sum(probs) - probs
    size = (before < mass).sum(-1, keepdim=True).clamp(min=1)
    return ordered.gather(-1, size - 1)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest entry [..., 1] over the last dimension; the smallest one where there are fewer than k."""
    return values.topk(min(k, values.shape[-1]), dim=-1, sorted=True).values[..., -1:]


def draw(logp: Tensor, u: Tensor) -> Tensor:
    """Draw one id per distribution by inverse CDF: the first id whose cumulative probability exceeds ``u``.

    logp: float32 [..., V], normalised up to rounding; u: float64 [...] in (0, 1). Returns int64 [...].

    A large vocabulary costs one pass: float64 sums over blocks of ids find the block, a running sum inside it finds the
    id. An id of probability 0 is never drawn, not even when rounding lets ``u`` overshoot.
    """
    probs, share = logp.exp(), u.unsqueeze(-1)
    if probs.shape[-1] <= _BLOCK:
        return _pick(probs.double(), share)[0].squeeze(-1)
    blocks = _blocks(probs)
    block, share = _pick(blocks.sum(-1, dtype=torch.float64), share)
    inside = blocks.gather(-2, block.unsqueeze(-1).expand(*block.shape, _BLOCK)).squeeze(-2)
    within, _ = _pick(inside.double(), share)
    return (block * _BLOCK + within).squeeze(-1)


def _blocks(probs: Tensor) -> Tensor:
    padding = -probs.shape[-1] % _BLOCK
    if padding:
        probs = torch.nn.functional.pad(probs, (0, padding))
    blocks: Tensor = probs.unflatten(-1, (-1, _BLOCK))
    return blocks


def _pick(mass: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Index [..., 1] of the entry in which the ``share`` [..., 1] of the whole mass is reached, and the share within.

    It is the last entry with mass that begins no later than there; so rounding can never lead past the last one.
    """
    cdf = _running_sum(mass)
    begin, target = cdf - mass, share * cdf[..., -1:]
    index = torch.arange(mass.shape[-1], device=mass.device)
    picked: Tensor = torch.where((mass > 0) & (begin <= target), index, 0).amax(-1, keepdim=True)
    within = (target - begin.gather(-1, picked)) / mass.gather(-1, picked)
    return picked, within.clamp(min=0.0)


def _running_sum(values: Tensor) -> Tensor:
    # Doubling shifts instead of torch.cumsum, whose float scan is not deterministic on CUDA.
    if values.device.type == "cpu":
        running: Tensor = values.cumsum(-1)
        return running
    shift = 1
    while shift < values.shape[-1]:
        moved = torch.nn.functional.pad(values[..., :-shift], (shift, 0))
        values = values + moved
        shift *= 2
    return values

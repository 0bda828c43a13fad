"""What a server says of its distributions, believed only once it has been checked.

The unit is a position: the K most probable ids there with their log-probs, and the log-prob of the token that stands
there. What is wrong is never repaired: a run must not learn from an answer to another question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skd.errors import NumericsError, Problem, RemoteError
from skd.types import TopEvidence

__all__ = ["Written", "dense_logits", "packed", "scored", "unpacked", "written"]

_FAINT = 1e-7
"""Mass that float32 sums cannot tell from nothing: the least that all other ids together are taken to have."""
_LARGEST_SUM = 1.001
_LARGEST_LOGP = 1e-3
_NOTHING = torch.finfo(torch.float32).min
"""Stands for -inf where every number must be finite."""


def scored(answer: Any, sent: Sequence[int], num_last: int, top: int, vocab_size: int) -> TopEvidence:
    """The evidence at the last ``num_last`` tokens of a prompt, from a completion with prompt log-probs.

    Raises RemoteError (SKD-R05) for an answer of another form or to another prompt, NumericsError (SKD-R06) for numbers
    that are no log-probs.
    """
    choice = _at(_at(answer, "choices", list), 0, Mapping)
    echoed, positions = _at(choice, "prompt_token_ids", list), _at(choice, "prompt_logprobs", list)
    if echoed != list(sent):
        raise _malformed("prompt_token_ids", f"holds {len(echoed)} ids that are not the {len(sent)} that were sent")
    if len(positions) != len(sent):
        raise _malformed("prompt_logprobs", f"has {len(positions)} entries for {len(sent)} tokens")
    if positions[0] is not None:
        raise _malformed("prompt_logprobs[0]", "is not null, though nothing predicts the first token")
    first = len(sent) - num_last
    top = min(top, vocab_size)
    rows = [_row(positions[i], sent[i], top, vocab_size, f"prompt_logprobs[{i}]") for i in range(first, len(sent))]
    return _evidence(rows, top, vocab_size)


_Row = tuple[list[int], list[float], float]
"""K ids, their log-probs, and the log-prob of the token written."""


def _row(entry: Any, written: int, top: int, vocab_size: int, place: str) -> _Row:
    if not isinstance(entry, Mapping):
        raise _malformed(place, "is no object")
    found = _numbers(entry, place)
    if written not in found:
        raise _malformed(place, f"lacks the token that stands there ({written})")
    if not top <= len(found) <= top + 1:
        raise _malformed(place, f"has {len(found)} ids, and {top} with the token itself were asked for")
    if sum(math.exp(logp) for logp in found.values()) > _LARGEST_SUM:
        raise _not_numbers(place, "its probabilities add up to more than 1")
    ranked = sorted(found, key=lambda token: (-found[token], token))[:top]
    return _shared(ranked, found, found[written], vocab_size)


def _numbers(entry: Mapping[str, Any], place: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for key, value in entry.items():
        logp = value.get("logprob") if isinstance(value, Mapping) else None
        if not (key.isascii() and key.isdigit()) or isinstance(logp, bool) or not isinstance(logp, int | float):
            raise _malformed(place, f"has the entry {key[:20]!r} in place of an id with its logprob")
        if math.isnan(logp) or logp > _LARGEST_LOGP:
            raise _not_numbers(place, f"id {key} has the log-prob {logp}")
        if int(key) in found:
            raise _malformed(place, f"has the id {int(key)} twice")
        found[int(key)] = float(logp)
    return found


def _shared(ranked: list[int], found: Mapping[int, float], written: float, vocab_size: int) -> _Row:
    """Without the ids of padded heads, which no model here has: normalised over the others, as local heads are cut.

    In their place stand the lowest ids not named, with an even share of what is not known.
    """
    ids = [token for token in ranked if token < vocab_size]
    logps = [min(found[token], 0.0) for token in ids]
    if missing := len(ranked) - len(ids):
        lost = math.log1p(-min(sum(math.exp(found[token]) for token in ranked if token >= vocab_size), 1.0 - _FAINT))
        logps, written = [logp - lost for logp in logps], written - lost
        tail = max(1.0 - sum(map(math.exp, logps)), _FAINT)
        named = set(ids)
        ids += [token for token in range(len(ids) + missing) if token not in named][:missing]
        logps += [math.log(tail / (vocab_size - len(named)))] * missing
    return ids, logps, min(written, 0.0)


def _evidence(rows: Sequence[_Row], top: int, vocab_size: int) -> TopEvidence:
    ids_LK = torch.tensor([row[0] for row in rows], dtype=torch.int64).view(-1, top)
    logp_LK = torch.tensor([row[1] for row in rows], dtype=torch.float64).view(-1, top)
    others = vocab_size - top
    # At most as much as all of them would have at the last probability that is known.
    most_L = others * logp_LK[:, -1:].exp()
    tail_L = (1.0 - logp_LK.exp().sum(-1, keepdim=True)).clamp(min=_FAINT).minimum(most_L)
    logp_LB = torch.cat([logp_LK, tail_L.log()], dim=-1).float()
    return TopEvidence(ids_LK, logp_LB, torch.tensor([row[2] for row in rows], dtype=torch.float32))


@dataclass(frozen=True)
class Written:
    """Tokens that a server wrote, and the log-prob of each before any warp."""

    ids: list[int]
    logps: list[float]


def written(answer: Any, model: str, sent: Sequence[int], cap: int, vocab_size: int) -> Written:
    """The response in a completion of ``sent`` that was asked for its token ids and their log-probs.

    Raises RemoteError (SKD-R05) for an answer of another form or to another prompt, and for a response that ended
    neither at its cap nor at an end; NumericsError (SKD-R06) for numbers that are no log-probs.
    """
    if _at(answer, "model", str) != model:
        raise _malformed("model", "is not the one that was asked")
    choice = _at(_at(answer, "choices", list), 0, Mapping)
    if _at(choice, "prompt_token_ids", list) != list(sent):
        raise _malformed("prompt_token_ids", f"are not the {len(sent)} that were sent")
    ids, reason = _at(choice, "token_ids", list), choice.get("finish_reason")
    logps = _at(_at(choice, "logprobs", Mapping), "token_logprobs", list)
    if not 1 <= len(ids) <= cap or len(logps) != len(ids):
        raise _malformed("token_ids", f"has {len(ids)} ids and {len(logps)} log-probs, and 1 to {cap} were asked for")
    if any(type(token) is not int or not 0 <= token < vocab_size for token in ids):
        raise _malformed("token_ids", f"has an entry that is no id below {vocab_size}")
    if reason != "stop" and (reason != "length" or len(ids) < cap):
        raise _malformed("finish_reason", f"is {str(reason)[:20]!r} after {len(ids)} of {cap} tokens")
    for logp in logps:
        if isinstance(logp, bool) or not isinstance(logp, int | float) or not -math.inf < logp <= _LARGEST_LOGP:
            raise _not_numbers("token_logprobs", f"has {str(logp)[:20]!r}")
    return Written(ids, [min(float(logp), 0.0) for logp in logps])


def dense_logits(evidence: TopEvidence, written_L: Tensor, vocab_size: int) -> Tensor:
    """Log-probs [L, V] that agree with everything known: what remains is spread evenly over the other ids."""
    ids_LK, logp_LB = evidence.ids_LK, evidence.logp_LB
    top_LK, tail_L = logp_LB[:, :-1], logp_LB[:, -1].double().exp()
    outside_L = ~(ids_LK == written_L.unsqueeze(-1)).any(-1)
    rest_L = tail_L - torch.where(outside_L, evidence.written_L.double().exp(), 0.0)
    count_L = (vocab_size - ids_LK.shape[1] - outside_L.long()).clamp(min=1)
    # Just below the last of the K, so that none of the others can tie with it.
    each_L = (rest_L.clamp(min=0.0) / count_L).log().float().minimum(top_LK[:, -1] - 1e-6)
    dense_LV = each_L.unsqueeze(-1).repeat(1, vocab_size)
    dense_LV.scatter_(-1, written_L.unsqueeze(-1), evidence.written_L.unsqueeze(-1))
    return dense_LV.scatter_(-1, ids_LK, top_LK)


def packed(evidence: TopEvidence) -> Tensor:
    """One finite float32 row [L, 2 K + 2] per token, for buffers that hold rows; ids stay exact below 2^24."""
    parts = [evidence.ids_LK.float(), evidence.logp_LB, evidence.written_L.unsqueeze(-1)]
    return torch.cat(parts, dim=-1).clamp(min=_NOTHING)


def unpacked(packed_LE: Tensor, ids_L: Tensor) -> TopEvidence:
    """What was packed at the tokens ``ids_L``, each of which is the one it was packed with or one of its K."""
    top = packed_LE.shape[-1] // 2 - 1
    ids_LK, logp_LB = packed_LE[:, :top].long(), packed_LE[:, top:-1]
    logp_LB = logp_LB.masked_fill(logp_LB == _NOTHING, -math.inf)
    is_it_LK = ids_LK == ids_L.to(ids_LK.device).unsqueeze(-1)
    among_L = torch.where(is_it_LK, logp_LB[:, :-1], 0.0).sum(-1)
    return TopEvidence(ids_LK, logp_LB, torch.where(is_it_LK.any(-1), among_L, packed_LE[:, -1]))


def _at(value: Any, key: str | int, kind: type) -> Any:
    try:
        item = value[key]
    except (KeyError, IndexError, TypeError):
        item = None
    if not isinstance(item, kind):
        raise _malformed(str(key), f"is missing or no {kind.__name__.lower()}")
    return item


def _malformed(place: str, found: str) -> RemoteError:
    remedy = "see that the server is vLLM with return_token_ids, and that nothing between changes its answers"
    return RemoteError(Problem("SKD-R05", f"server's answer, {place}", found, remedy))


def _not_numbers(place: str, found: str) -> NumericsError:
    return NumericsError(Problem("SKD-R06", f"server's answer, {place}", found, "check the server's weights and dtype"))

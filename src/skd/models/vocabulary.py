"""One vocabulary for both models: aligned once, when they are loaded."""

from __future__ import annotations

import hashlib

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skd.errors import ModelError, Problem
from skd.files import canonical

__all__ = ["end_id", "shared_vocab_size", "stop_ids", "vocabulary_digest"]

_SHOWN = 5


def shared_vocab_size(tokenizers: dict[str, PreTrainedTokenizerBase], models: dict[str, PreTrainedModel]) -> int:
    """Number of ids that both tokenizers and all heads share; rows of padded heads beyond it are cut.

    Keys are the names used in messages. Raises ModelError when two tokenizers map a token to different ids, showing
    the first ids that differ, or when a head has fewer rows than its tokenizer has ids.
    """
    (first_name, first), *others = tokenizers.items()
    for name, tokenizer in others:
        _require_equal(first_name, first, name, tokenizer)
    size = max(first.get_vocab().values()) + 1
    for name, model in models.items():
        rows = model.get_output_embeddings().weight.shape[0]
        if rows < size:
            raise ModelError(
                Problem(
                    "SKD-M04",
                    name,
                    f"the head has {rows} rows but the tokenizer has ids up to {size - 1}",
                    "resize the embeddings of this model to its tokenizer, or use the tokenizer it was trained with",
                )
            )
    return size


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the map from tokens to ids: equal for tokenizers whose ids mean the same."""
    return hashlib.sha256(canonical(tokenizer.get_vocab())).hexdigest()


def _require_equal(
    first_name: str, first: PreTrainedTokenizerBase, name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    ours, theirs = first.get_vocab(), tokenizer.get_vocab()
    if ours == theirs:
        return
    by_id, by_id_other = ({i: token for token, i in vocab.items()} for vocab in (ours, theirs))
    differing = sorted(i for i in by_id.keys() | by_id_other.keys() if by_id.get(i) != by_id_other.get(i))
    shown = ", ".join(f"{i}: {by_id.get(i)!r} / {by_id_other.get(i)!r}" for i in differing[:_SHOWN])
    raise ModelError(
        Problem(
            "SKD-M02",
            f"{first_name} / {name}",
            f"the tokenizers differ at {len(differing)} ids, first {shown}",
            "use two models with one vocabulary; for different ones see cross-tokenizer methods such as GOLD in TRL",
        )
    )


def stop_ids(tokenizer: PreTrainedTokenizerBase, models: list[PreTrainedModel], vocab_size: int) -> frozenset[int]:
    """Every id at which a response ends: the union over the tokenizer and the models' two configs.

    Raises ModelError when there is none, because no response could then end before the cap.
    """
    found: set[int] = set()
    sources = [tokenizer.eos_token_id]
    for model in models:
        sources += [model.config.get_text_config().eos_token_id, getattr(model.generation_config, "eos_token_id", None)]
    for source in sources:
        found.update([source] if isinstance(source, int) else source or [])
    inside = frozenset(i for i in found if 0 <= i < vocab_size)
    if not inside:
        raise ModelError(
            Problem(
                "SKD-M07",
                "tokenizer, config and generation config",
                "no end token is defined",
                "set eos_token in the tokenizer or eos_token_id in generation_config.json",
            )
        )
    return inside


def end_id(tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> int:
    """The one stop id that is appended to references: the tokenizer's end token, else the lowest stop id."""
    eos = tokenizer.eos_token_id
    return eos if eos in stops else min(stops)

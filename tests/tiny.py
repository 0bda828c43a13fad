"""Random models of a few thousand weights, one for every supported family, whose next-token distributions matter.

The weights are drawn large enough that the context changes the prediction, and the final norm is scaled until the
raw logits have the wanted spread: neither uniform (every draw the same test) nor one-hot (no draw at all).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD_ID, EOS_ID = 0, 1
FIRST_WORD_ID = 2
"""Ids below are <pad> and </s>; from here on id i is the word ``t{i}``."""

FAMILIES = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "phi3", "gpt2", "mixtral", "qwen3_moe"]
WINDOWED = ["gemma2", "gemma3", "mistral", "phi3", "qwen2"]
"""Families that take ``window``. Two layers: gemma2, gemma3 and qwen2 mix a sliding with a full layer."""


def tiny_model(
    family: str,
    *,
    seed: int,
    vocab_size: int = 64,
    hidden: int = 32,
    layers: int = 2,
    padded_vocab: int | None = None,
    window: int | None = None,
    softcap: float | None = None,
    max_positions: int = 128,
    dtype: torch.dtype = torch.float32,
    logit_std: float = 1.5,
    **kw: Any,
) -> PreTrainedModel:
    """A random causal LM in eval mode. ``kw`` goes to the family's config.

    padded_vocab: rows of the embedding where it is larger than the tokenizer (Qwen's padding).
    softcap: caps the attention scores and (at twice the value) the final logits of gemma2.
    """
    if window is not None and family not in WINDOWED:
        raise ValueError(f"no sliding window for {family}")
    config_class, model_class, own = _family(family, hidden, layers, window, softcap, max_positions)
    common = {"vocab_size": padded_vocab or vocab_size, "bos_token_id": None, "eos_token_id": EOS_ID}
    config = config_class(**{**common, "pad_token_id": PAD_ID, **own, **kw})
    config._attn_implementation = "eager" if family in ("gemma2", "mamba") else "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        _draw_weights(model)
    _scale_logits(model.eval(), logit_std, seed)
    model.generation_config.eos_token_id = EOS_ID
    model.generation_config.pad_token_id = PAD_ID
    moved: PreTrainedModel = model.to(dtype=dtype)  # type: ignore[call-arg]
    return moved


def _family(
    family: str, hidden: int, layers: int, window: int | None, softcap: float | None, max_positions: int
) -> tuple[Callable[..., Any], Callable[..., PreTrainedModel], dict[str, Any]]:
    """Config class, model class and what the family's config needs beyond the common keys."""
    usual = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": max_positions,
    }
    head_dim = {"head_dim": hidden // 4}
    experts = {"num_experts_per_tok": 2}
    mixed = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)]
    table: dict[str, tuple[str, dict[str, Any]]] = {
        "llama": ("Llama", usual),
        "qwen2": ("Qwen2", usual),
        "qwen3": ("Qwen3", {**usual, **head_dim}),
        "gemma": ("Gemma", {**usual, **head_dim}),
        "gemma2": ("Gemma2", {**usual, **head_dim, "query_pre_attn_scalar": hidden // 4, "layer_types": mixed}),
        "gemma3": ("Gemma3", {**usual, **head_dim, "query_pre_attn_scalar": hidden // 4, "layer_types": mixed}),
        "mistral": ("Mistral", {**usual, **head_dim, "sliding_window": window}),
        "phi3": ("Phi3", {**usual, "sliding_window": window, "original_max_position_embeddings": max_positions}),
        "gpt2": ("GPT2", {"n_embd": hidden, "n_layer": layers, "n_head": 4, "n_positions": max_positions}),
        "mixtral": ("Mixtral", {**usual, **head_dim, **experts, "num_local_experts": 4}),
        "qwen3_moe": ("Qwen3Moe", {**usual, **head_dim, **experts, "num_experts": 4, "moe_intermediate_size": hidden}),
        "mamba": ("Mamba", {"hidden_size": hidden, "num_hidden_layers": layers, "state_size": 4}),
    }
    stem, own = table[family]
    if family in ("gemma2", "gemma3") and window is not None:
        own["sliding_window"] = window
    if family == "gemma2" and softcap is not None:
        own |= {"attn_logit_softcapping": softcap, "final_logit_softcapping": 2 * softcap}
    if family == "qwen2" and window is not None:
        own = {**own, "use_sliding_window": True, "sliding_window": window, "layer_types": mixed}
    config_name, model_name = {
        "Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
        "GPT2": ("GPT2Config", "GPT2LMHeadModel"),
    }.get(stem, (f"{stem}Config", f"{stem}ForCausalLM"))
    return getattr(transformers, config_name), getattr(transformers, model_name), own


@torch.no_grad()
def _draw_weights(model: PreTrainedModel) -> None:
    """Matrices with a gain near one; small embeddings, or tied models would only repeat their last token."""
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            continue
        is_embedding = any(part in name for part in ("embed", "wte", "wpe"))
        fan_in = weight.shape[-1] if "c_attn" not in name and "c_proj" not in name else weight.shape[0]
        weight.normal_(0.0, 0.05 if is_embedding else 1.2 * fan_in**-0.5)


@torch.no_grad()
def _scale_logits(model: PreTrainedModel, wanted_std: float, seed: int) -> None:
    """Scale the final norm until the raw logits have the wanted standard deviation over the vocabulary."""
    ids = torch.randint(0, model.config.vocab_size, (4, 16), generator=torch.Generator().manual_seed(seed))
    body = model.base_model
    norm = next(getattr(body, name) for name in ("norm", "ln_f", "norm_f") if hasattr(body, name))
    hidden = body(input_ids=ids, use_cache=False).last_hidden_state
    logits = torch.nn.functional.linear(hidden, model.get_output_embeddings().weight)
    scale = wanted_std / logits.std(dim=-1).mean()
    if type(norm).__name__.startswith("Gemma"):
        norm.weight.copy_((1.0 + norm.weight) * scale - 1.0)
    else:
        norm.weight.mul_(scale)


def tiny_tokenizer(vocab_size: int = 64) -> PreTrainedTokenizerFast:
    """Word-level: id 0 is <pad>, id 1 is </s>, id i is ``t{i}``; adds nothing of its own; words joined by spaces."""
    vocab = {"<pad>": PAD_ID, "</s>": EOS_ID} | {f"t{i}": i for i in range(FIRST_WORD_ID, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def save_tiny(directory: str | Path, family: str, *, vocab_size: int = 64, **kw: Any) -> Path:
    """Write a tiny model (safetensors, config, generation config) and its tokenizer; returns the directory.

    Encode text only with other families than qwen2: transformers ignores the saved tokenizer class there and reads
    the files as Qwen2Tokenizer, which keeps the ids but joins words without spaces and cannot encode them.
    """
    directory = Path(directory)
    tiny_model(family, vocab_size=vocab_size, **kw).save_pretrained(directory)
    tiny_tokenizer(vocab_size).save_pretrained(directory)
    return directory

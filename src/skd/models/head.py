"""How each model family turns its last hidden state into logits."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from skd.errors import ModelError, Problem
from skd.sampling.cache import context_length
from skd.types import Head

__all__ = ["body", "check_head", "head_of", "layers_of"]

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def body(model: PreTrainedModel) -> nn.Module:
    """The part of a model whose forward gives ``last_hidden_state`` [B, T, D], final norm included."""
    inner: nn.Module = model.base_model
    return inner


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder layers of a model, in the order in which they run."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def head_of(model: PreTrainedModel, vocab_size: int) -> Head:
    """The head of a model, cut to the first ``vocab_size`` ids. It holds views, so gradients reach the parameters.

    Gemma 2 and 3 cap their logits, Cohere multiplies and Granite divides them; other known families do neither.
    """
    linear = model.get_output_embeddings()
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    bias = getattr(linear, "bias", None)
    whole = len(linear.weight) == vocab_size
    return Head(
        # The slice of a whole weight would be one more copy of its gradient.
        weight_VD=linear.weight if whole else linear.weight[:vocab_size],
        bias_V=None if bias is None else bias[:vocab_size],
        scale=scale,
        softcap=getattr(config, "final_logit_softcapping", None),
    )


@torch.no_grad()
def check_head(model: PreTrainedModel, name: str, vocab_size: int) -> None:
    """Compare ``head_of`` with the model's own logits on a short probe; raises ModelError when they differ."""
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(vocab_size, (1, min(8, context_length(model))), generator=generator).to(model.device)
    own = model(input_ids=ids_BT, use_cache=False).logits[..., :vocab_size].float()
    ours = head_of(model, vocab_size).logits(body(model)(input_ids=ids_BT, use_cache=False).last_hidden_state)
    difference = float((ours - own).abs().max() / own.abs().max().clamp(min=1.0))
    if not difference <= _TOLERANCE[model.dtype]:
        raise ModelError(
            Problem(
                "SKD-M20",
                name,
                f"the logits of {type(model).__name__} are not its head applied to its last hidden state "
                f"(relative difference {difference:.2g}), so the chunked loss would be wrong",
                "use a supported family, or teach skd.models.head.head_of how this one scales its logits",
            )
        )

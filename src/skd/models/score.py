"""One full forward over finished responses: the slow twin of evidence, and the source of it where nothing is judged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.data.batching import micro_batches
from skd.models.head import body

__all__ = ["padded_sequences", "predicting", "score"]


def padded_sequences(
    prompt_ids: Sequence[Tensor], response_ids: Sequence[Tensor], device: torch.device | str
) -> Tensor:
    """Prompts with their responses, right-padded to int64 [B, T].

    Right padding needs no mask in a causal model: no real token ever looks at what stands after it.
    """
    rows = [torch.cat([prompt, response]) for prompt, response in zip(prompt_ids, response_ids, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)


def predicting(hidden_BTD: Tensor, prompt_lengths: Sequence[int], response_lengths: Sequence[int]) -> list[Tensor]:
    """The hidden states that predict each response token: B tensors [L, D].

    Response token i of a prompt of length P stands at index P + i and is predicted by the state at P + i - 1. This is
    the only place where that shift is made.
    """
    return [
        hidden_TD[prompt - 1 : prompt - 1 + response]
        for hidden_TD, prompt, response in zip(hidden_BTD, prompt_lengths, response_lengths, strict=True)
    ]


@torch.no_grad()
def score(
    model: PreTrainedModel, prompt_ids: Sequence[Tensor], response_ids: Sequence[Tensor], token_budget: int = 16384
) -> list[Tensor]:
    """The model's last hidden states that predict each response token: R tensors [L, D] on its device.

    ``token_budget`` bounds the padded tokens of one forward.
    """
    prompts, responses = [len(ids) for ids in prompt_ids], [len(ids) for ids in response_ids]
    out: list[Tensor] = [torch.empty(0)] * len(prompts)
    lengths = [p + r for p, r in zip(prompts, responses, strict=True)]
    for group in micro_batches(lengths, token_budget, model.device.type):
        ids_BT = padded_sequences([prompt_ids[i] for i in group], [response_ids[i] for i in group], model.device)
        hidden_BTD = body(model)(input_ids=ids_BT, use_cache=False).last_hidden_state
        states = predicting(hidden_BTD, [prompts[i] for i in group], [responses[i] for i in group])
        for i, state in zip(group, states, strict=True):
            # A copy, because a view would keep the padded batch with all its prompts alive until the loss.
            out[i] = state.clone()
    return out

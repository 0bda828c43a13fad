"""Tiny models for the built-in tasks: tokenizer, architecture, supervised training, exact match."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from skd.data.rows import Row
from skd.data.tasks import Task

__all__ = ["Recipe", "build_model", "exact_match", "random_llama", "train"]

WARMUP_STEPS = 20
IGNORED = -100
"""Label that PyTorch's cross-entropy leaves out."""


@dataclass(frozen=True)
class Recipe:
    """How one model is made. ``steps`` of ``batch`` rows each, rows drawn once from the train split by ``seed``.

    ``schedule`` is the number of steps that the learning rate was planned for: a model that stops before its end is
    half trained, as a student that is to be distilled is.
    """

    hidden: int
    layers: int
    steps: int
    schedule: int
    batch: int = 64
    lr: float = 3e-3
    seed: int = 0


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model of a recipe, with an untied head."""
    return random_llama(tokenizer, hidden=recipe.hidden, layers=recipe.layers, seed=recipe.seed)


def random_llama(
    tokenizer: PreTrainedTokenizerFast, *, hidden: int, layers: int, seed: int, tied: bool = False
) -> LlamaForCausalLM:
    """A Llama with four heads for the ids and the longest text of ``tokenizer``, with random weights that depend on
    the seed only."""
    torch.manual_seed(seed)
    special_ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=tied,
        **special_ids,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, **special_ids)
    return model


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], recipe: Recipe) -> float:
    """Cross-entropy on response and end token, AdamW, warm-up then linear decay; the mean loss of the last 20 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0)
    losses: list[float] = []
    for step, batch in enumerate(_batches(rows, recipe)):
        rate = min((step + 1) / WARMUP_STEPS, (recipe.schedule - step) / max(recipe.schedule - WARMUP_STEPS, 1), 1.0)
        optimizer.param_groups[0]["lr"] = recipe.lr * rate
        loss = model(**_training_batch(tokenizer, batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return sum(losses[-20:]) / len(losses[-20:]) if losses else float("nan")


@torch.inference_mode()
def exact_match(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, task: Task, rows: Sequence[Row]) -> float:
    """Share of rows whose greedy response, by transformers' own ``generate``, is entirely right."""
    model.eval()
    right = 0
    for start in range(0, len(rows), 250):
        batch = rows[start : start + 250]
        inputs = tokenizer([row.prompt for row in batch], padding=True, padding_side="left", return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=32)  # type: ignore[misc]
        texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(task.score(row, text) for row, text in zip(batch, texts, strict=True))
    return right / len(rows)


def _batches(rows: Sequence[Row], recipe: Recipe) -> Iterator[Sequence[Row]]:
    """Passes over the rows in shuffled order, until the steps are done."""
    shuffler = random.Random(recipe.seed)
    order: list[int] = []
    for _ in range(recipe.steps):
        while len(order) < recipe.batch:
            order += shuffler.sample(range(len(rows)), len(rows))
        yield [rows[i] for i in order[: recipe.batch]]
        del order[: recipe.batch]


def _training_batch(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> dict[str, Tensor]:
    """Right-padded ids, mask, and labels on the response and its end token only; int64 [rows, T] each."""
    prompts = tokenizer([row.prompt for row in rows], add_special_tokens=False)["input_ids"]
    ended = [f"{row.response} {tokenizer.eos_token}" for row in rows]
    responses = tokenizer(ended, add_special_tokens=False)["input_ids"]
    pairs = list(zip(prompts, responses, strict=True))
    ids = [torch.tensor(prompt + response) for prompt, response in pairs]
    labels = [torch.tensor([IGNORED] * len(prompt) + response) for prompt, response in pairs]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(row) for row in ids], batch_first=True)
    return {
        "input_ids": pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        "attention_mask": mask,
        "labels": pad(labels, batch_first=True, padding_value=IGNORED),
    }

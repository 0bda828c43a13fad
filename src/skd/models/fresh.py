"""A model of a known architecture with random weights: where training from nothing starts."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from skd.config import resolve_model_path
from skd.data.tasks import TASKS
from skd.data.words import build_tokenizer
from skd.models.directory import write_model
from skd.models.load import guarded, load_tokenizer

__all__ = ["write_fresh"]


def write_fresh(path: str, seed: int, directory: Path, words: str | None = None) -> Path:
    """Write a model with the architecture and tokenizer of ``path`` and weights drawn by ``seed`` to ``directory``.

    words: the built-in task whose words are its vocabulary, in place of the tokenizer of ``path``.

    Raises ModelError when there is no such model. A directory that is there is replaced.
    """
    found = resolve_model_path(path)
    tokenizer: PreTrainedTokenizerBase = load_tokenizer("model", path, None)
    config = guarded("model", found, lambda: AutoConfig.from_pretrained(found, trust_remote_code=False))
    if words is not None:
        tokenizer = build_tokenizer(TASKS[words])
        ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
        config.update({"vocab_size": len(tokenizer), **ids})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return write_model(directory, model, tokenizer)

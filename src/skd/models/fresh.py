"""A model of a known architecture with random weights: where training from nothing starts."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from skd.config import resolve_model_path
from skd.models.directory import write_model
from skd.models.load import guarded, load_tokenizer

__all__ = ["write_fresh"]


def write_fresh(path: str, seed: int, directory: Path) -> Path:
    """Write a model with the architecture and tokenizer of ``path`` and weights drawn by ``seed`` to ``directory``.

    Raises ModelError when there is no such model. A directory that is there is replaced.
    """
    found = resolve_model_path(path)
    tokenizer = load_tokenizer("model", path, None)
    config = guarded("model", found, lambda: AutoConfig.from_pretrained(found, trust_remote_code=False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return write_model(directory, model, tokenizer)

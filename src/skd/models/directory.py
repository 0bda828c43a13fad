"""Writing a model directory, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

__all__ = ["replacing", "without_progress_bars", "write_model"]


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """An empty directory beside ``directory``, which takes its place when the block ends without an error."""
    beside = directory.with_name(f".{directory.name}-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        shutil.rmtree(directory, ignore_errors=True)
        beside.rename(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_model(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str | None = None
) -> Path:
    """Write weights, configs and tokenizer, with ``card`` as README.md, in place of ``directory``; returns it."""
    with replacing(directory) as beside:
        with without_progress_bars():
            model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        if card is not None:
            (beside / "README.md").write_text(card, encoding="utf-8")
    return directory


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """transformers' own bars stay off for the length of a block: skd shows one display of its own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()

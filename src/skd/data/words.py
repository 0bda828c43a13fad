"""The tokenizer of a built-in task: its words, and nothing else."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from skd.data.tasks import Task

__all__ = ["MAX_POSITIONS", "build_tokenizer"]

MAX_POSITIONS = 256
"""Longest prompt and response of a tiny model for these tasks."""


def build_tokenizer(task: Task) -> PreTrainedTokenizerFast:
    """One id per word of the task, split at white space; ``</s>`` ends a response, ``<pad>`` fills batches."""
    specials = ["<pad>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*specials, *task.words])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )

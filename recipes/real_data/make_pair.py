"""Two tiny untrained models with a tokenizer of the data: ``python recipes/real_data/make_pair.py TASK DATA --to DIR``.

For trying the whole pipeline on any machine; for scores worth having, name pretrained models instead.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from skd.config.sources import FileSource
from skd.data import load_rows
from skd.errors import SkdError

VOCABULARY = 2_048
MAX_POSITIONS = 768


@dataclass(frozen=True)
class Size:
    """Width and depth of a model."""

    hidden: int
    layers: int


PAIR = {"teacher": Size(hidden=160, layers=4), "student": Size(hidden=80, layers=2)}


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every text of every script can be written; digits one by one."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights that depend on the seed only."""
    torch.manual_seed(seed)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        **ids,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    return model


def make_pair(task: str, data: Path, to: Path, seed: int) -> None:
    """Write ``to/teacher`` and ``to/student``, each whole or not at all."""
    rows = load_rows([FileSource(path=str(data / "train.jsonl"), task=task)])
    tokenizer = train_tokenizer(text for row in rows for text in (row.prompt, row.response or ""))
    for role, size in PAIR.items():
        beside = to / f".{role}.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        model = build_model(size, tokenizer, seed)
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        shutil.rmtree(to / role, ignore_errors=True)
        beside.rename(to / role)
        print(f"{to / role}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="gsm8k, math, dialogsum, translation or translation:LANGUAGE-English")
    parser.add_argument("data", type=Path, help="folder with train.jsonl, as python -m skd.data.make writes it")
    parser.add_argument("--to", type=Path, required=True, help="folder that receives teacher/ and student/")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        make_pair(options.task, options.data, options.to, options.seed)
    except SkdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

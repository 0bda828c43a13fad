"""Two tiny untrained models with a tokenizer of the data: ``python recipes/real_data/make_pair.py TASK DATA --to DIR``.

Beside them stands what they learn the language from: the training rows as whole texts, prompt and response in one.
For trying the whole pipeline on any machine; for scores worth having, name pretrained models instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from skd.config.sources import FileSource
from skd.data import load_rows
from skd.data.rows import Row
from skd.errors import SkdError
from skd.models.directory import write_model
from skd.quickstart.tiny import random_llama
from skd.text import write_text

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


def whole_texts(rows: Iterable[Row]) -> Iterator[dict[str, str]]:
    """Prompt and response of every row in one, to learn the language of both: its first word, and the rest."""
    for row in rows:
        first, space, rest = f"{row.prompt}{row.response or ''}".partition(" ")
        if rest.strip():
            yield {"prompt": first + space, "response": rest}


def make_pair(task: str, data: Path, to: Path, seed: int) -> None:
    """Write ``to/texts.jsonl``, ``to/teacher`` and ``to/student``, each whole or not at all."""
    rows = load_rows([FileSource(path=str(data / "train.jsonl"), task=task)])
    tokenizer = train_tokenizer(text for row in rows for text in (row.prompt, row.response or ""))
    write_text(to / "texts.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in whole_texts(rows)))
    for role, size in PAIR.items():
        model = random_llama(tokenizer, hidden=size.hidden, layers=size.layers, seed=seed, tied=True)
        write_model(to / role, model, tokenizer)
        print(f"{to / role}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="gsm8k, math, dialogsum, translation or translation:LANGUAGE-English")
    parser.add_argument("data", type=Path, help="folder with train.jsonl, as python -m skd.data.make writes it")
    parser.add_argument("--to", type=Path, required=True, help="folder that receives the models and the texts")
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

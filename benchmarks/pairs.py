"""Random pairs of a realistic shape, for benchmarks in which the words do not matter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import skd
from skd.models import Pair
from skd.types import Prompts

__all__ = ["random_pair", "random_prompts", "save_random_llama"]


def save_random_llama(directory: Path, *, hidden: int, layers: int, vocab_size: int, seed: int) -> Path:
    """A Llama with random weights and a word-level tokenizer of ``vocab_size`` ids, as a model directory."""
    torch.manual_seed(seed)
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, vocab_size)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(directory)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=1)
    model.save_pretrained(directory)
    return directory


def random_pair(dtype: str = "float32") -> Pair:
    """Of 576 x 15 and 576 x 5 with 49,152 ids; nothing of it stays on disk."""
    with tempfile.TemporaryDirectory() as directory:
        teacher = save_random_llama(Path(directory) / "teacher", hidden=576, layers=15, vocab_size=49_152, seed=0)
        student = save_random_llama(Path(directory) / "student", hidden=576, layers=5, vocab_size=49_152, seed=1)
        return skd.load_pair(teacher, student, teacher_dtype=dtype, sample_dtype=dtype, device="cpu")


def random_prompts(count: int) -> Prompts:
    """Of 56 to 66 ids of that vocabulary."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(56, 67, (count,), generator=generator).tolist()
    return Prompts(
        [torch.randint(3, 49_152, (length,), generator=generator).tolist() for length in lengths], range(count)
    )

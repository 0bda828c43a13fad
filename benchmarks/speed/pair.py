"""The pairs and the work: SmolLM2-135M, the package's own, and random ones of a chosen acceptance rate, any shape.

A random pair needs no download and no training.

The teacher is the student followed by further layers that are scaled down by ``noise``: 0 makes it the student, and the
larger it is the less the two agree. Gate, models and draws are the real ones; only the words mean nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["SHAPES", "Shape", "save_pair", "with_work"]

_LOGIT_STD = 6.0
"""Spread of the logits: at this one a random model's draws concentrate on a few dozen of 49,152 ids."""


@dataclass(frozen=True)
class Shape:
    """The two models' sizes."""

    hidden: int
    teacher_layers: int
    student_layers: int
    vocab_size: int
    noise: tuple[float, float]
    """Scales of the teacher's further layers at which about 50 % and 90 % of the drafts are kept at K = 25."""


SHAPES = {
    # SmolLM2-135M and a student of a third of its layers: 134.5 and 63.7 million parameters.
    "smol": Shape(576, 30, 10, 49_152, noise=(0.3, 0.12)),
    # The same with half the layers.
    "quick": Shape(576, 15, 5, 49_152, noise=(0.41, 0.16)),
    # Half of its layers at half its width, with the largest vocabulary in use.
    "vocabulary_262k": Shape(320, 6, 3, 262_144, noise=(0.41, 0.16)),
    # For memory: nearly all of it is what the loss holds.
    "large_vocabulary": Shape(64, 2, 1, 262_144, noise=(0.3, 0.1)),
}


def save_pair(directory: Path, shape: Shape, noise: float, seed: int = 0) -> tuple[Path, Path]:
    """Write the teacher with this noise and the student; returns their directories."""
    paths = directory / f"teacher-{noise:g}", directory / "student"
    if all((path / "config.json").exists() for path in paths):
        return paths
    torch.manual_seed(seed)
    teacher, student = _llama(shape, shape.teacher_layers), _llama(shape, shape.student_layers)
    _draw(teacher, shape)
    for layer in teacher.model.layers[shape.student_layers :]:
        layer.self_attn.o_proj.weight.data *= noise
        layer.mlp.down_proj.weight.data *= noise
    student.load_state_dict(teacher.state_dict(), strict=False)
    for model, path in zip((teacher, student), paths, strict=True):
        model.save_pretrained(path)
        _tokenizer(shape.vocab_size).save_pretrained(path)
    return paths


def with_work(plan: dict[str, Any], directory: Path) -> dict[str, Any]:
    """A piece of work complete: the pair's paths and the ids, which every contestant gets alike.

    Prompts have 56 to 66 ids. Where generation alone is measured their lengths are log-normal (median 40, sigma 0.6),
    and one id in 48 ends a response, so that the lengths of responses are about geometric, cut at the cap. With a
    ``spread`` the references are log-normal (median ``length``, that sigma, at most twice the median), and one id in
    ``length`` ends a sampled response, at most as long.
    """
    if plan["shape"] in _REAL:
        return {**plan, **_REAL[plan["shape"]](plan), "lr": 1e-7}
    shape, generator = SHAPES[plan["shape"]], torch.Generator().manual_seed(0)

    def rows(lengths: Tensor) -> list[list[int]]:
        ids = torch.randint(3, shape.vocab_size, (int(lengths.sum()),), generator=generator)
        return [row.tolist() for row in ids.split(lengths.tolist())]

    cold, warm = shape.noise
    teacher, student = save_pair(directory / plan["shape"], shape, cold)
    ids = torch.randperm(shape.vocab_size, generator=generator)
    ragged = (40 * (0.6 * torch.randn(plan["ragged"], generator=generator)).exp()).long().clamp(8, 200)
    return {
        **plan,
        "student": str(student),
        "teacher": str(teacher),
        "warm_teacher": str(save_pair(directory / plan["shape"], shape, warm)[0]),
        "prompts": rows(torch.randint(56, 67, (plan["batch"] * 8,), generator=generator)),
        "responses": rows(_lengths(plan, generator)),
        "ragged": rows(ragged),
        "stop_ids": ids.tolist()[: shape.vocab_size // 48],
        "step_stop_ids": ids.tolist()[: shape.vocab_size // plan["length"]] if plan["spread"] else [],
        "cap": 192,
        "slots": 32,
        "lr": 1e-7,
    }


def _lengths(plan: dict[str, Any], generator: torch.Generator) -> Tensor:
    """Of the references, evenly spaced quantiles in a random order, so that every batch has long and short ones."""
    count = plan["batch"] * 8
    share = (torch.arange(count) + 0.5) / count
    normal = torch.special.ndtri(share)[torch.randperm(count, generator=generator)]
    lengths: Tensor = (plan["length"] * (plan["spread"] * normal).exp()).long().clamp(1, 2 * plan["length"])
    return lengths


def _smollm2(plan: dict[str, Any]) -> dict[str, Any]:
    """SmolLM2-135M; warm are the drafts that the student draws at a low temperature."""
    from benchmarks.speed import smollm2

    student = smollm2.student()
    prompts, responses = smollm2.rows(plan["batch"] * 8, plan["length"])
    return {
        "student": str(student),
        "teacher": str(smollm2.teacher()),
        "warm_teacher": str(smollm2.teacher()),
        "warm_temperature": 0.25,
        "prompts": prompts,
        "responses": responses,
        "step_stop_ids": [],
    }


def _quickstart(plan: dict[str, Any]) -> dict[str, Any]:
    """The pair of the package with real prompts and references of its task."""
    from skd.config import resolve_model_path
    from skd.data.tasks import TASKS

    teacher, student = (str(resolve_model_path(f"builtin:number_words/{role}")) for role in ("teacher", "student"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(student, trust_remote_code=False)
    rows = TASKS["number_words"].rows("train", plan["batch"] * 8, 0)
    return {
        "student": student,
        "teacher": teacher,
        "warm_teacher": teacher,
        "prompts": [tokenizer.encode(row.prompt) for row in rows],
        "responses": [tokenizer.encode(row.response) for row in rows],
        "step_stop_ids": [1],
    }


_REAL: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"quickstart": _quickstart, "smollm2": _smollm2}


def _llama(shape: Shape, layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=max(1, shape.hidden // 192),
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.tie_weights()
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=1)
    return model


@torch.no_grad()
def _draw(model: LlamaForCausalLM, shape: Shape) -> None:
    """Weights at which every layer speaks as loud as the sum before it, and the embedding hardly at all.

    Were the embedding loud, a tied head would repeat the last token for ever.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.lm_head:
            module.weight.normal_(std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=0.02)
        elif type(module).__name__.endswith("RMSNorm"):
            module.weight.fill_(1.0)  # type: ignore[operator]
    model.model.norm.weight.fill_(_LOGIT_STD / (0.02 * shape.hidden**0.5))


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, vocab_size)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(json.dumps(with_work(json.loads(path.read_text()), Path(sys.argv[2]))))

"""``--engine vllm``: the same prompts as token ids, the same ends, written by vLLM's offline engine.

vLLM pins its own torch and transformers, so it has an environment of its own, into which this package is installed as
well (docs/evaluation.md). Settings were read in vLLM 0.32.0: https://docs.vllm.ai.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from skd.config import resolve_model_path
from skd.errors import ModelError, Problem, joined
from skd.evaluate.engines import Response
from skd.evaluate.prompts import Decoding
from skd.evaluate.workload import Workload
from skd.model_files import model_files
from skd.models.load import guarded, load_tokenizer, provenance
from skd.models.vocabulary import end_id, stop_ids
from skd.sampling.checks import require_prompts
from skd.types import Prompts

__all__ = ["Vllm", "open_vllm"]

_ENVIRONMENT = {
    # In this process: no second one to start, to guard a main module for, or to leave behind.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class _Unloaded:
    """What of a model is known without its weights, under transformers' names."""

    config: PreTrainedConfig
    generation_config: GenerationConfig | None


@dataclass(frozen=True)
class Vllm:
    """A model that vLLM holds; itself the reader of its prompts."""

    llm: Any
    tokenizer: PreTrainedTokenizerBase
    context: int
    vocab_size: int
    stop_ids: frozenset[int]
    model: dict[str, Any]
    padded: bool
    """The head has rows beyond the tokenizer's ids."""

    @property
    def reader(self) -> Vllm:
        """This object."""
        return self

    @property
    def end_id(self) -> int:
        """The stop id appended to references."""
        return end_id(self.tokenizer, self.stop_ids)

    @property
    def settings(self) -> dict[str, Any]:
        """Samples of one engine are not continued by another."""
        from vllm import __version__

        return {"engine": f"vllm {__version__}", "dtype": "float32"}

    def write(self, prompts: Prompts, work: Workload, decoding: Decoding) -> list[Response]:
        """Raises DataError for a prompt that does not fit the context together with the cap."""
        require_prompts(prompts, [work.max_new_tokens] * len(prompts), self.context, self.vocab_size)
        parameters = [self._parameters(work, decoding, sample_id) for sample_id in prompts.sample_ids]
        asked = [{"prompt_token_ids": list(ids)} for ids in prompts.ids]
        with _refusing(self.model["path"]):
            outputs = self.llm.generate(asked, parameters, use_tqdm=False)
        return [self._response(output.outputs[0]) for output in outputs]

    def _parameters(self, work: Workload, decoding: Decoding, sample_id: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=decoding.temperature,
            # One key for every prompt: with the seed alone, equal prompts would draw alike.
            seed=None if decoding.temperature == 0.0 else (decoding.seed << 31) + sample_id,
            max_tokens=work.max_new_tokens,
            # Every end id is named here; vLLM's own idea of them is left out.
            ignore_eos=True,
            stop_token_ids=sorted(self.stop_ids),
            stop=list(work.stop_strings) or None,
            skip_special_tokens=False,
            allowed_token_ids=list(range(self.vocab_size)) if self.padded else None,
        )

    def _response(self, written: Any) -> Response:
        ids = list(written.token_ids)
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return Response(ids, text, written.finish_reason == "length")


def open_vllm(path: str | Path, slots: int) -> Vllm:
    """Open a model in float32, as this package's own sampler does: so both write the same.

    slots: responses written at once, at most. Raises ModelError for a model that cannot be used.
    """
    files, errors = model_files("student", str(path), None)
    if files is None:
        raise joined(errors)
    unloaded, tokenizer = _unloaded(path), load_tokenizer("student", path, None)
    config, vocab_size = unloaded.config.get_text_config(), max(tokenizer.get_vocab().values()) + 1
    if config.vocab_size < vocab_size:
        found = f"the head has {config.vocab_size} rows but the tokenizer has ids up to {vocab_size - 1}"
        raise ModelError(Problem("SKD-M04", "student", found, "resize the embeddings of this model to its tokenizer"))
    context = int(getattr(config, "max_position_embeddings", None) or config.n_positions)
    architecture = {"class": (unloaded.config.architectures or ["unknown"])[0]}
    return Vllm(
        llm=_llm(path, slots),
        tokenizer=tokenizer,
        context=context,
        vocab_size=vocab_size,
        stop_ids=stop_ids(tokenizer, [unloaded], vocab_size),  # type: ignore[list-item]
        model=provenance(path, unloaded) | architecture,  # type: ignore[arg-type]
        padded=config.vocab_size > vocab_size,
    )


def _unloaded(path: str | Path) -> _Unloaded:
    where = resolve_model_path(str(path))
    config = guarded("student", path, lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))
    try:
        generation: GenerationConfig | None = GenerationConfig.from_pretrained(where, trust_remote_code=False)
    except OSError:
        generation = None
    return _Unloaded(config, generation)


def _llm(path: str | Path, slots: int) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import torch
    from vllm import LLM

    where = resolve_model_path(str(path))
    with _refusing(path):
        return LLM(
            model=where,
            dtype="float32",
            load_format="safetensors",
            trust_remote_code=False,
            generation_config="vllm",
            max_num_seqs=slots,
            enforce_eager=not torch.cuda.is_available(),
        )


@contextmanager
def _refusing(path: str | Path) -> Iterator[None]:
    """What vLLM cannot open or run: its families, head sizes and kernels are not this package's."""
    try:
        yield
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        found = f"vLLM cannot run it: {first.strip()[:300]}"
        raise ModelError(Problem("SKD-M20", f"student {str(path)!r}", found, "leave --engine out")) from error

"""Opening one model or tokenizer: safetensors only, no remote code, nothing missing, every error in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from skd.config import resolve_model_path
from skd.errors import ModelError, Problem, joined
from skd.files import directory_digest
from skd.model_files import explain, model_files, require_directory
from skd.models.directory import without_progress_bars
from skd.models.quantized import quantized_loading, require_narrow, require_quantization

__all__ = [
    "attention_of",
    "guarded",
    "load_model",
    "load_tokenizer",
    "provenance",
    "require_rewindable",
    "require_whole",
]

_REWINDABLE = frozenset({"full_attention", "sliding_attention"})


def load_model(
    name: str,
    path: str | Path,
    revision: str | None,
    dtype: torch.dtype,
    attention: str,
    device: torch.device,
    quantization: str | None = None,
) -> PreTrainedModel:
    """Load a causal language model in eval mode. ``name`` is its part ("teacher" or "student") in messages.

    Raises ModelError for what cannot be used and RemoteError when the Hub cannot be reached.
    """
    files, errors = model_files(name, str(path), revision)
    if files is None:
        raise joined(errors)
    path = resolve_model_path(str(path))
    if not Path(path).is_dir():
        # A snapshot is named by its commit: what a branch points to may change between two requests.
        revision = files.directory.name
    require_quantization(name, quantization)
    attention = attention_of(files.config, attention)
    model, info = guarded(
        name,
        path,
        lambda: AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            # Refused below, together with what is missing, in place of a pointer to a table that is not shown.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **quantized_loading(quantization, dtype, device),
        ),
    )
    require_whole(name, path, info)
    require_rewindable(name, type(model), model.config)
    require_narrow(name, model, quantization)
    model.config._commit_hash = revision
    model.to(device)
    model.eval()
    loaded: PreTrainedModel = model
    return loaded


def attention_of(config: Mapping[str, Any], wanted: str) -> str:
    """The attention that a model samples with: capped scores exist in no fused kernel that takes masks."""
    capped = config.get("attn_logit_softcapping") is not None or config.get("model_type") == "gemma2"
    return "eager" if capped else wanted


def load_tokenizer(name: str, path: str | Path, revision: str | None) -> PreTrainedTokenizerBase:
    """Load a tokenizer. Raises as ``load_model`` does."""
    path = resolve_model_path(str(path))
    tokenizer: PreTrainedTokenizerBase = guarded(
        name, path, lambda: AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    )
    return tokenizer


def provenance(path: str | Path, model: PreTrainedModel) -> dict[str, Any]:
    """What identifies a loaded model: its path, its Hub commit, or the digest of a local directory's files."""
    record: dict[str, Any] = {"path": str(path), "class": type(model).__name__}
    directory = Path(resolve_model_path(str(path)))
    if not directory.is_dir():
        return record | {"revision": getattr(model.config, "_commit_hash", None)}
    return record | {"digest": directory_digest(directory)}


def guarded(name: str, path: str | Path, load: Any) -> Any:
    """What ``load`` returns. It holds calls of transformers only, and a broken file can make those raise anything."""
    require_directory(name, path)
    try:
        with _quiet():
            return load()
    except Exception as error:
        raise explain(name, path, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither bars nor transformers' tables of keys: ``_require_whole`` says what does not match in one line."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with without_progress_bars():
            yield
    finally:
        transformers_logging.set_verbosity(before)


def require_whole(name: str, path: str | Path, info: dict[str, Any]) -> None:
    """Every weight that the architecture has was found, with its shape, and no other. Raises ModelError (SKD-M15)."""
    faults = {kind: sorted(map(str, info.get(kind) or ())) for kind in ("missing_keys", "unexpected_keys")}
    faults["mismatched_keys"] = [str(item) for item in info.get("mismatched_keys") or ()]
    listed = "; ".join(f"{kind.split('_')[0]}: {', '.join(keys[:3])}" for kind, keys in faults.items() if keys)
    if listed:
        raise ModelError(
            Problem(
                "SKD-M15",
                f"{name} {str(path)!r}",
                f"weights and architecture do not match ({listed})",
                "fetch or export the checkpoint again",
            )
        )


def require_rewindable(name: str, model_class: type[PreTrainedModel], full_config: PreTrainedConfig) -> None:
    """No layer holds a state that cannot be put back. Raises ModelError (SKD-M20)."""
    layer_types = set(getattr(full_config.get_text_config(), "layer_types", None) or ())
    if getattr(model_class, "_is_stateful", False) or not layer_types <= _REWINDABLE:
        kinds = ", ".join(sorted(layer_types - _REWINDABLE)) or "recurrent state"
        raise ModelError(
            Problem(
                "SKD-M20",
                f"{name} {model_class.__name__}",
                f"has layers whose state cannot be rewound after a rejected draft ({kinds})",
                "use a family with full or sliding-window attention",
            )
        )

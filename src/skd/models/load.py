"""Opening one model or tokenizer: safetensors only, no remote code, nothing missing, every error in plain words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from skd.config import resolve_model_path
from skd.errors import ModelError, Problem, RemoteError

__all__ = ["load_model", "load_tokenizer", "provenance", "without_progress_bars"]

_REWINDABLE = frozenset({"full_attention", "sliding_attention"})
_DENIED_KEYS = ("auto_map", "trust_remote_code", "_attn_implementation_internal", "quantization_config")


def load_model(
    name: str, path: str | Path, revision: str | None, dtype: torch.dtype, attention: str, device: torch.device
) -> PreTrainedModel:
    """Load a causal language model in eval mode. ``name`` is its part ("teacher" or "student") in messages.

    Raises ModelError for what cannot be used and RemoteError when the Hub cannot be reached.
    """
    path = resolve_model_path(str(path))
    raw = _guarded(name, path, lambda: dict(PreTrainedConfig.get_config_dict(path, revision=revision)[0]))
    _refuse_denied_keys(name, path, raw)
    # Soft-capped attention scores exist in no fused kernel that takes masks, so such models sample eagerly.
    if raw.get("attn_logit_softcapping") is not None or raw.get("model_type") == "gemma2":
        attention = "eager"
    model, info = _guarded(
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
        ),
    )
    _require_whole(name, path, info)
    _require_rewindable(name, model)
    model.to(device)
    model.eval()
    loaded: PreTrainedModel = model
    return loaded


def load_tokenizer(name: str, path: str | Path, revision: str | None) -> PreTrainedTokenizerBase:
    """Load a tokenizer. Raises as ``load_model`` does."""
    path = resolve_model_path(str(path))
    tokenizer: PreTrainedTokenizerBase = _guarded(
        name, path, lambda: AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    )
    return tokenizer


def provenance(path: str | Path, model: PreTrainedModel) -> dict[str, Any]:
    """What identifies a loaded model: its path, its Hub commit, or the digest of a local directory's files.

    The digest covers the names and sizes of all files and the content of the small ones (up to 1 MiB), so that it is
    cheap for any size of weights.
    """
    record: dict[str, Any] = {"path": str(path), "class": type(model).__name__}
    directory = Path(resolve_model_path(str(path)))
    if not directory.is_dir():
        return record | {"revision": getattr(model.config, "_commit_hash", None)}
    digest = hashlib.sha256()
    for file in sorted(p for p in directory.iterdir() if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        if size <= 2**20:
            digest.update(file.read_bytes())
    return record | {"digest": digest.hexdigest()}


def _guarded(name: str, path: str | Path, load: Any) -> Any:
    """What ``load`` returns. It holds calls of transformers only, and a broken file can make those raise anything."""
    _require_directory(name, path)
    try:
        with _quiet():
            return load()
    except Exception as error:
        raise _explain(name, path, error) from error


def _require_directory(name: str, path: str | Path) -> None:
    """Refuse what can be no model, neither here nor on the Hub, before the Hub complains of it in its own terms."""
    place, text = f"{name} {str(path)!r}", str(path)
    if not text.strip():
        raise ModelError(Problem("SKD-M14", place, "is empty", "give a directory, a Hub id or builtin:TASK/ROLE"))
    if Path(path).is_dir():
        return
    if Path(path).exists():
        raise ModelError(Problem("SKD-M14", place, "is a file, not a model directory", "give its directory"))
    if text[0] in "./~" or text.count("/") > 1:
        remedy = "correct the path (it starts where skd is started; ~ is not expanded), or give a Hub id: owner/name"
        raise ModelError(Problem("SKD-M14", place, "there is no such directory", remedy))


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


def _explain(name: str, path: str | Path, error: Exception) -> ModelError | RemoteError:
    place = f"{name} {str(path)!r}"
    if Path(path).is_dir():
        found, remedy = _defect(Path(path), error)
        return ModelError(Problem("SKD-M14", place, f"cannot be loaded: {found}", remedy))
    return RemoteError(
        Problem(
            "SKD-M23",
            place,
            f"is no local directory and could not be read from the Hub: {_reason(error)}",
            "check the name, the network, and HF_TOKEN for gated models",
        )
    )


def _defect(directory: Path, error: Exception) -> tuple[str, str]:
    """What is wrong with a model directory, and the way out."""
    if not (directory / "config.json").is_file():
        return "it holds no config.json", "give the directory that a model was saved to, by save_pretrained for example"
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in directory.glob(pattern))
    if pickled and not any(directory.glob("*.safetensors")):
        found = f"its weights are pickled ({pickled[0]}), and unpickling runs whatever code the file holds"
        return found, "convert them to safetensors where you trust them, and give that directory"
    return _reason(error), "check the directory's config, tokenizer and safetensors"


def _reason(error: Exception) -> str:
    """The first line of an error's text, with the next where it ends in a colon; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return (f"{type(error).__name__}: {text}" if isinstance(error, LookupError | AttributeError) else text).rstrip(".")


def _refuse_denied_keys(name: str, path: str | Path, raw: dict[str, Any]) -> None:
    denied = [key for key in _DENIED_KEYS if key in raw]
    if denied:
        raise ModelError(
            Problem(
                "SKD-M12" if denied != ["auto_map"] else "SKD-M11",
                f"{name} {str(path)!r}: config.json",
                f"holds {', '.join(denied)}, which can lead to code or weights this loader does not run",
                "use a model of a family that transformers ships, with plain safetensors weights",
            )
        )


def _require_whole(name: str, path: str | Path, info: dict[str, Any]) -> None:
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


def _require_rewindable(name: str, model: PreTrainedModel) -> None:
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ())
    if getattr(model, "_is_stateful", False) or not layer_types <= _REWINDABLE:
        kinds = ", ".join(sorted(layer_types - _REWINDABLE)) or "recurrent state"
        raise ModelError(
            Problem(
                "SKD-M20",
                f"{name}: {type(model).__name__}",
                f"has layers whose state cannot be rewound after a rejected draft ({kinds})",
                "use a family with full or sliding-window attention",
            )
        )

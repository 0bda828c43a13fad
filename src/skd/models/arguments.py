"""The arguments of ``load_pair`` that have few choices: checked before anything is read."""

from __future__ import annotations

import importlib.util

import torch

from skd.errors import ConfigError, ModelError, Problem

__all__ = ["device_of", "dtype_of", "require_attention"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_ATTENTIONS = ("sdpa", "eager", "flash_attention_2")


def dtype_of(name: str, value: str) -> torch.dtype:
    """The dtype that the argument ``name`` asks for. Raises ConfigError for another word."""
    if value not in _DTYPES:
        raise _refusal(name, f"is {value!r}", "write float32 or bfloat16")
    return _DTYPES[value]


def device_of(device: str | torch.device) -> torch.device:
    """The device asked for; "auto" takes CUDA where there is one. Raises ConfigError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise _refusal("device", f"is {str(device)!r}", "write auto, cpu, cuda or cuda:N") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise _refusal("device", f"is {str(device)!r} and torch sees no CUDA device", "write auto or cpu")
    return found


def require_attention(attention: str) -> None:
    """The attention implementation is a known one (ConfigError), and its package is installed (ModelError)."""
    if attention not in _ATTENTIONS:
        raise _refusal("attention", f"is {attention!r}", "write sdpa, eager or flash_attention_2")
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise ModelError(
            Problem(
                "SKD-M20",
                "student.attention",
                "flash_attention_2 was asked for, but the package flash_attn is not installed",
                "install flash-attn, or write attention: sdpa",
            )
        )


def _refusal(name: str, found: str, remedy: str) -> ConfigError:
    return ConfigError(Problem("SKD-C07", name, found, remedy))

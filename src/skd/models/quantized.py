"""Teachers whose linear layers hold fewer bits, by torchao and bitsandbytes through transformers; the head stays.

A quantised model is frozen: there is no such student.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from skd.errors import ConfigError, ModelError, Problem

__all__ = ["quantized_loading", "require_quantization"]

_PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}


def require_quantization(quantization: str | None) -> None:
    """The quantisation is a known one (ConfigError), and its package is installed (ModelError)."""
    if quantization is None:
        return
    if quantization not in _PACKAGES:
        found = f"is {quantization!r}"
        raise ConfigError(Problem("SKD-C07", "teacher_quantization", found, f"write {' or '.join(_PACKAGES)}"))
    package = _PACKAGES[quantization]
    if importlib.util.find_spec(package) is None:
        found = f"{quantization} was asked for, but the package {package} is not installed"
        raise ModelError(Problem("SKD-M20", "teacher.quantization", found, "install skd[quantized], or leave it out"))


def quantized_loading(quantization: str | None, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` that quantise while loading; none without a quantisation.

    int8: one scale per row, rounded to nearest; the arithmetic is that of ``dtype``
    (https://github.com/pytorch/ao, weight-only int8). nf4: 4 bits in blocks of 64 (QLoRA, Dettmers et al. 2023,
    arXiv 2305.14314).
    """
    if quantization is None:
        return {}
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if quantization == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        settings: Any = TorchAoConfig(quant_type=Int8WeightOnlyConfig())
    else:
        settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": settings, "device_map": {"": device}}

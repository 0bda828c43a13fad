"""Models whose linear layers hold fewer bits, by torchao and bitsandbytes through transformers; the head stays.

What is quantised is frozen: a teacher, or the weights under a student's adapters (QLoRA, Dettmers et al. 2023,
arXiv 2305.14314).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from skd.errors import ConfigError, ModelError, Problem

__all__ = [
    "is_narrow",
    "keep_packing",
    "quantized_loading",
    "require_narrow",
    "require_quantization",
    "widened_layer",
    "widened_model",
]

_PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}
_WEIGHTS = frozenset({"Int8Tensor", "Params4bit"})
"""Classes of the two libraries' weights, by name, so that neither is imported where it is not needed."""


def require_quantization(name: str, quantization: str | None) -> None:
    """The quantisation of ``name`` is a known one (ConfigError), and its package is installed (ModelError)."""
    if quantization is None:
        return
    if quantization not in _PACKAGES:
        found = f"is {quantization!r}"
        raise ConfigError(Problem("SKD-C07", f"{name}_quantization", found, f"write {' or '.join(_PACKAGES)}"))
    package = _PACKAGES[quantization]
    if importlib.util.find_spec(package) is None:
        found = f"{quantization} was asked for, but the package {package} is not installed"
        raise ModelError(Problem("SKD-M20", f"{name}.quantization", found, "install skd[quantized], or leave it out"))


def quantized_loading(quantization: str | None, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` that quantise while loading; none without a quantisation.

    int8: one scale per row, rounded to nearest; the arithmetic is that of ``dtype``
    (https://github.com/pytorch/ao, weight-only int8). nf4: 4 bits in blocks of 64 (QLoRA).
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


def require_narrow(name: str, model: PreTrainedModel, quantization: str | None) -> None:
    """Some layer of a model loaded with a quantisation holds fewer bits, else ModelError (SKD-M20)."""
    if quantization is None or any(map(is_narrow, model.modules())):
        return
    found = f"{quantization} quantises none of its layers, which are of another kind than torch's linear ones"
    raise ModelError(Problem("SKD-M20", f"{name}.quantization", found, "leave it out, or try nf4"))


def keep_packing(model: PreTrainedModel) -> None:
    """Keep quantised layers as they were loaded, in place.

    On some CPUs bitsandbytes packs a layer anew at its first forward without gradient, and rounds its scales to
    bfloat16. Sampling, training and a resumed run of a student would then stand on different weights.
    """
    layers: list[Any] = [layer for layer in model.modules() if is_narrow(layer)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


def is_narrow(layer: nn.Module) -> bool:
    """Whether this is a linear layer that holds fewer bits."""
    return type(getattr(layer, "weight", None)).__name__ in _WEIGHTS


def widened_layer(layer: Any, change: Tensor | float = 0.0) -> nn.Module:
    """The float32 layer that a quantised one stands for, with ``change`` [out, in] added to its weight."""
    weight_OI = _values(layer.weight).float() + change
    plain: Any
    if getattr(layer, "source_cls", nn.Linear) is Conv1D:
        plain, weight = Conv1D(layer.out_features, layer.in_features), weight_OI.T.contiguous()
    else:
        plain, weight = nn.Linear(layer.in_features, layer.out_features, device="meta"), weight_OI
    plain.weight, plain.bias = nn.Parameter(weight), layer.bias
    return plain  # type: ignore[no-any-return]


def _values(weight: Any) -> Tensor:
    if not hasattr(weight, "quant_state"):
        values: Tensor = weight.dequantize()
        return values
    from bitsandbytes.functional import dequantize_4bit

    unpacked: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return unpacked


def widened_model(model: PreTrainedModel) -> PreTrainedModel:
    """``model``, in place, with every quantised layer widened and nothing left that says it was quantised."""
    for name, layer in list(model.named_modules()):
        if is_narrow(layer):
            model.set_submodule(name, widened_layer(layer))
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for mark in ("hf_quantizer", "is_quantized", "is_loaded_in_4bit", "quantization_method"):
        model.__dict__.pop(mark, None)
    return model

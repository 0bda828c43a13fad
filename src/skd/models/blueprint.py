"""A model without its weights: the architecture on the meta device, compared with what the files say they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from skd.errors import ModelError, Problem
from skd.model_files import ModelFiles, StoredTensor
from skd.models.load import attention_of, guarded, require_rewindable, require_whole

__all__ = ["blueprint"]

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def blueprint(name: str, path: str, files: ModelFiles) -> PreTrainedModel:
    """The model of ``files`` with every parameter on the meta device: names, shapes and configs, no number.

    transformers' own loader is given tensors without content, so that renamed, merged and tied weights are understood
    as they will be when the model is loaded.

    Raises ModelError for what ``load_model`` would refuse: not a causal language model or state that cannot be rewound
    (SKD-M20), weights that do not match the architecture (SKD-M15), a config that transformers cannot use (SKD-M14).
    """
    where = str(files.directory)
    config = guarded(name, where, lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))
    model_class = _causal_class(name, path, config)
    require_rewindable(name, model_class, config)
    model, info = guarded(name, where, lambda: _empty(model_class, config, files))
    require_whole(name, where, info)
    if (files.directory / "generation_config.json").is_file():
        model.generation_config = guarded(name, where, lambda: _generation_config(files.directory))
    built: PreTrainedModel = model.eval()
    return built


def _generation_config(directory: Path) -> GenerationConfig:
    text = (directory / "generation_config.json").read_text(encoding="utf-8")
    loaded: GenerationConfig = GenerationConfig.from_dict(json.loads(text))
    return loaded


def _causal_class(name: str, path: str, config: PreTrainedConfig) -> type[PreTrainedModel]:
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        found = f"is of type {config.model_type}, for which transformers has no causal language model"
        raise ModelError(Problem("SKD-M20", f"{name} {path!r}", found, "use a decoder-only language model"))
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return cast("type[PreTrainedModel]", model_class)


def _empty(model_class: Any, config: PreTrainedConfig, files: ModelFiles) -> tuple[PreTrainedModel, dict[str, Any]]:
    attention = attention_of(files.config, "sdpa")
    with torch.device("meta"):
        if files.tensors is None:
            model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, trust_remote_code=False)
            return model, {}
        loaded: tuple[PreTrainedModel, dict[str, Any]] = model_class.from_pretrained(
            None,
            config=config,
            state_dict={key: _stand_in(tensor) for key, tensor in files.tensors.items()},
            dtype=torch.float32,
            attn_implementation=attention,
            device_map={"": "meta"},
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        return loaded


def _stand_in(tensor: StoredTensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=_DTYPES[tensor.dtype], device="meta")

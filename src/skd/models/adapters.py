"""Low-rank adapters on a student (LoRA, Hu et al. 2021, arXiv 2106.09685), by the library peft.

The layers are put into the model in place, so that it stays the class it is: its body, head and caches work as before.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from skd.config import LoraConfig
from skd.errors import ModelError, Problem
from skd.model_files import reason
from skd.models.quantized import is_narrow, widened_layer, widened_model

__all__ = ["Adapters", "frozen", "merged", "take_out"]

_PLACE = "student.lora"


@dataclass(frozen=True)
class Adapters:
    """What is added: W x becomes W x + alpha / r B A x, with A [r, in] drawn and B [out, r] zero at first."""

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    """Share of the inputs of A that is dropped in training."""
    targets: tuple[str, ...] = ()
    """Last names of the linear layers that get one, such as ``q_proj``; empty: all but the head."""
    seed: int = 0
    """Chooses A."""

    @classmethod
    def of(cls, config: LoraConfig | None, seed: int) -> Adapters | None:
        """Those of a config; None where it asks for none."""
        return None if config is None else cls(config.r, config.alpha, config.dropout, config.targets or (), seed)

    def add_to(self, student: PreTrainedModel) -> None:
        """Put adapters into ``student`` and freeze all else. Its logits are unchanged until B is trained.

        Raises ModelError (SKD-M20) when peft is missing, names none of the layers, or cannot adapt one of them.
        """
        require_peft()
        import peft

        settings = peft.LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # annotated int, used as a number
            lora_dropout=self.dropout,
            target_modules=list(self.targets) or "all-linear",
            fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in student.modules()),
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            try:
                peft.inject_adapter_in_model(settings, student)
            except Exception as error:  # peft raises many kinds, each for a layer that it does not know
                raise _refusal(f"peft cannot adapt this model: {reason(error)}", "name other targets") from error
        _require_plain_ends(student)
        student.eval()

    def __str__(self) -> str:
        where = ", ".join(self.targets) or "all linear layers"
        return f"r {self.r}, alpha {self.alpha:g}, dropout {self.dropout:g}, {where}, seed {self.seed}"


def require_peft() -> None:
    """Raise ModelError (SKD-M20) when peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise _refusal("asks for adapters, and the package peft is not installed", "install skd[lora]")


def merged(student: PreTrainedModel) -> PreTrainedModel:
    """A copy of ``student`` with W + alpha / r B A for W and no adapters; the student itself where it has none.

    Of a quantised W these are the values that the adapters were trained on, in float32.
    """
    if not any(_adapted(student)):
        return student
    plain = _taken_out(copy.deepcopy(student), merge=True)
    return widened_model(plain).requires_grad_(True)


def take_out(model: PreTrainedModel) -> PreTrainedModel:
    """Remove the adapters of ``model`` in place; its weights are what is left."""
    return _taken_out(model, merge=False)


def _taken_out(model: PreTrainedModel, *, merge: bool) -> PreTrainedModel:
    # The innermost first: experts with two weights have one adapter around the other.
    for name, layer in reversed(list(_adapted(model))):
        base = layer.get_base_layer()
        if merge and is_narrow(base):
            # peft would round the sum to the bits of W again.
            base = widened_layer(base, layer.get_delta_weight("default"))
        elif merge:
            layer.merge()
        model.set_submodule(name, base)
    model.__dict__.pop("peft_config", None)
    model._hf_peft_config_loaded = False
    return model


def frozen(student: PreTrainedModel) -> dict[int, Any]:
    """What ``copy.deepcopy`` takes as its second argument, so that the copy shares the parameters not trained."""
    return {id(parameter): parameter for parameter in student.parameters() if not parameter.requires_grad}


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and layer of everything that holds an adapter."""
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A"))


def _require_plain_ends(student: PreTrainedModel) -> None:
    ends = {student.get_output_embeddings(), student.get_input_embeddings()}
    found = [name for name, layer in _adapted(student) if layer in ends]
    if found:
        # The chunked loss reads the head's weight, and tied embeddings would have two adapters.
        raise _refusal(f"targets {found[0]}, which is the head or the embedding", "name layers of the body")


def _refusal(found: str, remedy: str) -> ModelError:
    return ModelError(Problem("SKD-M20", _PLACE, found, remedy))

"""Training in shards by DeepSpeed (ZeRO-2 and ZeRO-3; Rajbhandari et al., 2020, arXiv 1910.02054)."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.optim import AdamW

from skd.config import TrainConfig
from skd.models import Pair
from skd.train.batch import no_responses
from skd.train.lockstep import GATHERINGS
from skd.train.optimizer import adamw, set_lr
from skd.train.pieces import Weights
from skd.train.spread import MakeLoss, on_main
from skd.train.tensors import checked_moments, checked_weights
from skd.train.whole import Models

__all__ = ["Zero"]

PERSISTENT = 100_000
"""Weights of fewer elements are whole in every process (DeepSpeed's own default)."""
BUCKET = 50_000_000
"""Elements of gradients that are sent at once; DeepSpeed's default would take 2 GB for them."""
_SLOTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Zero:
    """Gradients and moments of the learner, in stage 3 its weights too, in as many shards as there are processes.

    Everything is float32 here, so what DeepSpeed calls the low-precision weights are the master weights.
    """

    pair: Pair
    learner: Pair
    module: nn.Module
    """DeepSpeed's engine."""
    optimizer: AdamW
    models: Models
    accelerator: Accelerator

    @classmethod
    def over(cls, pair: Pair, make_loss: MakeLoss, settings: TrainConfig, accelerator: Accelerator) -> Zero:
        """A copy of the pair's student learns."""
        if accelerator.device.type == "cpu":
            # Otherwise DeepSpeed takes whatever device it finds.
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        models = GATHERINGS[settings.gather](pair, accelerator.device)
        student = copy.deepcopy(pair.student)
        learner = replace(pair, student=student)
        optimizer = adamw(student, settings)
        engine, *_ = deepspeed.initialize(
            model=make_loss(learner), optimizer=optimizer, config=_options(settings), dist_init_required=False
        )
        if settings.sharding == "zero2":
            _start_state(optimizer)
        models.pieces.empty()
        return cls(pair, learner, engine, optimizer, models, accelerator)

    @property
    def engine(self) -> Any:
        """The module, as what it is: DeepSpeed has no types."""
        return self.module

    def visit(self) -> AbstractContextManager[None]:
        """As ``train.gather`` says."""
        return self.models.visit(self._weights())

    def read_by_main(self) -> AbstractContextManager[None]:
        """In the host's memory."""
        return self.models.pieces.read_by_main(self._weights())

    def _weights(self) -> Weights:
        import deepspeed

        parameters = dict(self.learner.student.named_parameters())

        def gathered(name: str, dtype: torch.dtype) -> Tensor:
            with deepspeed.zero.GatheredParameters([parameters[name]]):
                return parameters[name].detach().to(dtype, copy=True)

        return gathered

    def backward_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Every backward sums; after the last one the sum is final."""
        self.engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """By DeepSpeed."""
        self.engine.backward(loss)

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Gathered."""
        from deepspeed.utils import safe_get_full_grad

        return ((name, safe_get_full_grad(parameter)) for name, parameter in self._trained())

    def grad_norm(self) -> float:
        """DeepSpeed knows it only after the update, which a bad one must stop."""
        norms = [torch.linalg.vector_norm(gradient) for _, gradient in self.gradients()]
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    def update(self, lr: float, grad_norm: float) -> None:
        """DeepSpeed clips, as torch does."""
        set_lr(self.optimizer, lr)
        self.engine.step()
        self.models.pieces.follow(self.visit)

    def moments(self) -> dict[str, Tensor]:
        """Gathered."""
        return on_main(self._moments(), self.accelerator)

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        from deepspeed.utils import safe_get_full_optimizer_state

        # The flat shards all have taken the same steps; before the first there is no state.
        steps = [state["step"] for state in self.optimizer.state.values()]
        if not steps or not steps[0]:
            return
        for name, parameter in self._trained():
            yield f"step.{name}", steps[0].clone()
            for slot in _SLOTS:
                yield f"{slot}.{name}", safe_get_full_optimizer_state(parameter, slot)

    @torch.no_grad()
    def reloaded(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], source: Path) -> None:
        """Each process takes its shards."""
        whole, trained = dict(self.pair.student.named_parameters()), dict(self._trained())
        checked_weights(self.pair.student, weights, source)
        for name, parameter in trained.items():
            _put(parameter, weights[name].to(self.accelerator.device))
        self._make_state()
        for name, saved in checked_moments(whole, moments, source):
            for slot in _SLOTS:
                _put(trained[name], saved[slot], slot)
            for state in self.optimizer.state.values():
                state["step"].copy_(saved["step"])

    def _make_state(self) -> None:
        """A step of no gradient and no length: it makes AdamW's state, and brings new weights to where forward is."""
        self.engine.set_gradient_accumulation_boundary(True)
        with torch.enable_grad():
            self.engine.backward(self.engine(no_responses(self.accelerator.device)).loss)
        set_lr(self.optimizer, 0.0)
        self.engine.step()
        for state in self.optimizer.state.values():
            state["step"].zero_()

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        named = self.learner.student.named_parameters()
        return ((name, parameter) for name, parameter in named if parameter.requires_grad)


def _options(settings: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's configuration. Micro-batches are counted by our loop, which says which one is the last."""
    stage = {"zero2": 2, "zero3": 3}[settings.sharding]
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": BUCKET,
        "stage3_param_persistence_threshold": PERSISTENT,
    }
    if settings.offload:
        zero |= {"offload_optimizer": {"device": "cpu"}}
        zero |= {"offload_param": {"device": "cpu"}} if stage == 3 else {}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.clip_norm or 0.0,
        "zero_optimization": zero,
        # torch's own AdamW, also where the CPU holds its state.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _start_state(optimizer: AdamW) -> None:
    """AdamW's own first state. DeepSpeed 0.19 notes where the state lies when the first group of weights has been
    updated, and would not find that of the other groups."""
    for group in optimizer.param_groups:
        for shard in group["params"]:
            moments = {slot: torch.zeros_like(shard) for slot in _SLOTS}
            optimizer.state[shard] = {"step": torch.zeros((), dtype=torch.float32), **moments}


def _put(parameter: nn.Parameter, whole: Tensor, slot: str | None = None) -> None:
    """Set the master weight, or a moment, from a whole tensor; each process takes its shard."""
    from deepspeed import utils

    if not hasattr(parameter, "ds_tensor"):  # stage 2
        if slot is None:
            utils.safe_set_full_fp32_param(parameter, whole)
        else:
            utils.safe_set_full_optimizer_state(parameter, whole, slot)
        return
    # The functions for whole tensors do not know the padding of the last shard.
    size = parameter.ds_tensor.numel()
    padded = whole.new_zeros(size * distributed.get_world_size())
    padded[: whole.numel()] = whole.detach().view(-1)
    mine = padded[size * distributed.get_rank() :][:size]
    if slot is None:
        utils.safe_set_local_fp32_param(parameter, mine)
    else:
        utils.safe_set_local_optimizer_state(parameter, mine, slot)

"""How new weights get into an engine that runs: through files, or from GPU to GPU.

Read in vLLM 0.32.0: ``v1/worker/gpu_worker.py`` (``reload_weights``), ``entrypoints/rl/online/api_router.py`` and
``distributed/weight_transfer/nccl_engine.py``.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from skd.engines.nccl import PEERS, TYPES, Link, connect
from skd.engines.transport import Call
from skd.errors import ConfigError, Problem, RemoteError
from skd.model_files import stored_tensors
from skd.models.export import export_for_engine, weights_for_engine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from skd.models.pair import Pair

__all__ = ["TRANSFERS", "Ask", "Files", "Nccl", "Renew", "Transfer"]

Ask = Callable[[Call], Any]
"""Asks the engine once: these calls change it, and a second try would find it changed."""
Renew = Callable[["Pair", "PreTrainedModel"], None]
"""Gives the engine the weights that the model now has."""
_KEY = "sampling.rollouts.transfer"
_FILES = "write files"


class Transfer(Protocol):
    """A way for weights."""

    @property
    def options(self) -> tuple[str, ...]:
        """Of the engine's command line."""
        ...

    def place(self, device: torch.device) -> torch.device:
        """Where the engine of a process that trains on ``device`` runs. Raises ConfigError where there is no place."""
        ...

    def opened(self, model: Path, device: torch.device, ask: Ask, seconds: float) -> Renew:
        """For an engine that has started on the directory ``model``. Renewing raises RemoteError where it fails."""
        ...


@dataclass(frozen=True)
class Files:
    """The weights are written as a model directory, which the engine reads anew."""

    options: tuple[str, ...] = ()

    def place(self, device: torch.device) -> torch.device:
        """Beside the training."""
        return device

    def opened(self, model: Path, device: torch.device, ask: Ask, seconds: float) -> Renew:
        """By a worker's ``reload_weights``."""

        def renew(pair: Pair, changed: PreTrainedModel) -> None:
            export_for_engine(pair, changed, model)
            ask(Call("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(model)}}))

        return renew


@dataclass(frozen=True)
class Nccl:
    """One broadcast for each weight. The engine has a GPU of its own: NCCL takes no two ranks on one.

    Not run on a GPU. The probe after each renewal tells weights that came wrong.
    """

    options: tuple[str, ...] = ("--weight-transfer-config", '{"backend": "nccl"}')
    link: Callable[[torch.device], Link] = connect

    def place(self, device: torch.device) -> torch.device:
        """After the GPUs of all processes that train on this machine. Raises ConfigError (SKD-V02)."""
        number = (device.index or 0) + int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if device.type != "cuda" or number >= torch.cuda.device_count():
            found = f"is nccl, which takes a GPU for each engine besides that of its process, and {_visible(device)}"
            raise ConfigError(Problem("SKD-V02", _KEY, found, f"make more of them visible, or {_FILES}"))
        return torch.device("cuda", number)

    def opened(self, model: Path, device: torch.device, ask: Ask, seconds: float) -> Renew:
        """Both join by an id that goes over HTTP. Raises RemoteError (SKD-V02) where that fails."""
        link, stored = self.link(device), stored_tensors("engine", model, model)
        shared = base64.b64encode(link.id).decode("ascii")
        info = {"rank_offset": 1, "world_size": PEERS, "nccl_unique_id_b64": shared, "packed": False}
        _together(link, ask, Call("/init_weight_transfer_engine", {"init_info": info}), link.join, seconds)

        def renew(pair: Pair, changed: PreTrainedModel) -> None:
            weights = _as_stored(weights_for_engine(pair, changed), {name: one.shape for name, one in stored.items()})
            told = {
                "names": list(weights),
                "dtype_names": [str(weight.dtype).removeprefix("torch.") for weight in weights.values()],
                "shapes": [list(weight.shape) for weight in weights.values()],
            }
            tensors = list(weights.values())
            ask(Call("/start_weight_update", {}))
            _together(link, ask, Call("/update_weights", {"update_info": told}), lambda: link.send(tensors), seconds)
            ask(Call("/finish_weight_update", {}))

        return renew


TRANSFERS: Mapping[str, Transfer] = {"files": Files(), "nccl": Nccl()}
"""By their names in a config."""


def _visible(device: torch.device) -> str:
    return f"{torch.cuda.device_count()} are visible" if device.type == "cuda" else "there is none"


def _as_stored(weights: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The weights in the names of the checkpoint that the engine started on, tied ones once.

    Raises ConfigError (SKD-V02) for a model whose weights have other names there, or a type that is not sent.
    """
    wrong = [
        name
        for name, shape in shapes.items()
        if name not in weights or tuple(weights[name].shape) != tuple(shape) or weights[name].dtype not in TYPES
    ]
    if wrong:
        found = f"is nccl, and {wrong[0]} is not in this model as it is in its files"
        raise ConfigError(Problem("SKD-V02", _KEY, found, _FILES))
    return {name: weights[name].contiguous() for name in shapes}


def _together(link: Link, ask: Ask, call: Call, ours: Callable[[], None], seconds: float) -> None:
    """The engine and this process enter one collective; where one of them fails, the other would wait for ever.

    Raises what either raises, or RemoteError (SKD-V02) when time is up.
    """
    both = [_started(lambda: ask(call)), _started(ours)]
    done, waiting = wait(both, timeout=seconds, return_when=FIRST_EXCEPTION)
    errors = [error for each in done if (error := each.exception()) is not None]
    if errors or waiting:
        link.abort()
    if errors:
        raise errors[0]
    if waiting:
        found = f"{call.path} did not come to an end within {seconds:g} seconds"
        raise RemoteError(Problem("SKD-V02", "vLLM for the rollouts", found, f"look at NCCL_DEBUG=INFO, or {_FILES}"))


def _started(work: Callable[[], Any]) -> Future[Any]:
    """In a thread that may be left behind in native code: no end of the process waits for it."""
    future = Future[Any]()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="skd-transfer", daemon=True).start()
    return future

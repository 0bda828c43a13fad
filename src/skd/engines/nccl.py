"""NCCL between this process and an engine: the few functions of ``nccl.h`` that this takes, by ctypes.

A communicator of torch's cannot be joined from outside of its process group; this one is joined by whoever has its id.
Not run on a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem, RemoteError

__all__ = ["PEERS", "TYPES", "Link", "Stream", "connect"]

PEERS = 2
"""This process, rank 0, and the engine's worker, rank 1."""
_SUM = 0
TYPES = {torch.float32: 7, torch.bfloat16: 9}


class _Id(ctypes.Structure):
    """ncclUniqueId; goes by value."""

    _fields_ = (("bytes", ctypes.c_ubyte * 128),)


_SIGNATURES: dict[str, list[Any]] = {
    "ncclGetUniqueId": [ctypes.POINTER(_Id)],
    # communicator, ranks, id, rank
    "ncclCommInitRank": [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, _Id, ctypes.c_int],
    # from, to, elements, type, reduction (or root), communicator, stream
    "ncclAllReduce": [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
    ],
    "ncclBroadcast": [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
    ],
    "ncclCommAbort": [ctypes.c_void_p],
}  # fmt: skip


class Stream(Protocol):
    """Of torch.cuda."""

    @property
    def cuda_stream(self) -> int:
        """Its handle."""
        ...

    def synchronize(self) -> None:
        """Wait for what was started on it."""
        ...


class Link:
    """A communicator of this process and an engine. ``join`` and ``send`` return when the engine has done its part."""

    def __init__(self, library: Any, device: torch.device, stream: Stream) -> None:
        for name, types in _SIGNATURES.items():
            getattr(library, name).argtypes = types
        library.ncclGetErrorString.restype = ctypes.c_char_p
        self._library, self._stream = library, stream
        self._device = -1 if device.index is None else device.index
        self._one = torch.zeros(1, device=device)
        self._id, self._communicator = _Id(), ctypes.c_void_p()
        self._call("ncclGetUniqueId", ctypes.byref(self._id))

    @property
    def id(self) -> bytes:
        """What the engine joins by, 128 bytes."""
        return bytes(self._id.bytes)

    def join(self) -> None:
        """Raises RemoteError (SKD-V02), as the other two do."""
        with torch.cuda.device(self._device):
            self._call("ncclCommInitRank", ctypes.byref(self._communicator), PEERS, self._id, 0)
            # vLLM's warm-up, in which every peer takes part.
            self._collective("ncclAllReduce", self._one, _SUM)
            self._stream.synchronize()

    def send(self, weights: Sequence[Tensor]) -> None:
        """Broadcast each; they are contiguous, on the link's device, and of one of the TYPES."""
        with torch.cuda.device(self._device):
            for weight in weights:
                self._collective("ncclBroadcast", weight, 0)
            self._stream.synchronize()

    def abort(self) -> None:
        """End what waits for an engine that does not come; the link is of no use afterwards."""
        if self._communicator:
            self._library.ncclCommAbort(self._communicator)
            self._communicator = ctypes.c_void_p()

    def _collective(self, name: str, tensor: Tensor, number: int) -> None:
        place, stream = tensor.data_ptr(), self._stream.cuda_stream
        self._call(name, place, place, tensor.numel(), TYPES[tensor.dtype], number, self._communicator, stream)

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            said = (self._library.ncclGetErrorString(status) or b"").decode("utf-8", "replace")
            remedy = "look at NCCL_DEBUG=INFO, or write sampling.rollouts.transfer: files"
            raise RemoteError(Problem("SKD-V02", name, f"returned {status} ({said})", remedy))


def connect(device: torch.device) -> Link:
    """With the NCCL that torch has loaded. Raises ConfigError (SKD-V02) where there is none."""
    try:
        library = ctypes.CDLL("libnccl.so.2")
    except OSError as error:
        remedy = "install a torch for CUDA, or write files"
        problem = Problem("SKD-V02", "sampling.rollouts.transfer", f"is nccl, and {error}", remedy)
        raise ConfigError(problem) from None
    return Link(library, device, torch.cuda.current_stream(device))

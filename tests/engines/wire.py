"""A libnccl that reaches as far as the next thread, and an engine that takes its weights from it as vLLM does."""

import base64
import ctypes
import queue
import threading
from contextlib import suppress
from ctypes import CFUNCTYPE, c_int
from dataclasses import dataclass, field
from typing import Any

import torch

from skd.engines.child import Starting
from skd.engines.nccl import _SIGNATURES, TYPES, Link
from tests.engines.written import Engine, Engines

PATIENCE = 120.0
SIZES = {torch.float32: 4, torch.bfloat16: 2}


class Stream:
    cuda_stream = 7

    def synchronize(self) -> None:
        pass


class Wire:
    """Functions of C with the signatures of nccl.h, called by ctypes. ``wrong``: name -> status that it returns."""

    def __init__(self, **wrong: int) -> None:
        self.wrong, self.calls, self.sent = wrong, [], queue.Queue[bytes]()
        self.joined = threading.Barrier(2)
        self.aborted = threading.Event()
        for name, types in _SIGNATURES.items():
            setattr(self, name, CFUNCTYPE(c_int, *types)(getattr(self, f"_{name}")))
        self.ncclGetErrorString = lambda status: f"fault {status}".encode()

    def link(self, device: torch.device) -> Link:
        return Link(self, device, Stream())

    def _done(self, name: str, *said: Any) -> int:
        self.calls.append((name, *said))
        return self.wrong.get(name, 0)

    def _ncclGetUniqueId(self, place: Any) -> int:
        place.contents.bytes[:] = range(128)
        return self._done("ncclGetUniqueId")

    def _ncclCommInitRank(self, place: Any, ranks: int, number: Any, rank: int) -> int:
        place[0] = 4711
        if (status := self._done("ncclCommInitRank", ranks, bytes(number.bytes), rank)) == 0:
            self._meet()
        return status

    def _ncclAllReduce(self, here: int, there: int, count: int, kind: int, operation: int, comm: int, on: int) -> int:
        assert here == there
        return self._done("ncclAllReduce", count, kind, operation, comm, on)

    def _ncclBroadcast(self, here: int, there: int, count: int, kind: int, root: int, comm: int, on: int) -> int:
        assert here == there
        size = {number: SIZES[dtype] for dtype, number in TYPES.items()}[kind]
        self.sent.put(ctypes.string_at(here, count * size))
        return self._done("ncclBroadcast", count, kind, root, comm, on)

    def _ncclCommAbort(self, comm: int) -> int:
        self.aborted.set()
        return self._done("ncclCommAbort", comm)

    def _meet(self) -> None:
        with suppress(threading.BrokenBarrierError):
            self.joined.wait(PATIENCE)


@dataclass
class WiredEngine(Engine):
    wire: Any = None
    asked: list[str] = field(default_factory=list)
    refuses: str = ""
    """A path that it answers with HTTP 500."""

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if path in ("/version", "/v1/completions"):
            return super().answer(path, body)
        assert body is not None
        self.asked.append(path)
        if path == self.refuses:
            return 500, {"error": "the engine does not like it"}
        getattr(self, path.removeprefix("/"))(**body)
        return 200, {"message": "done"}

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        assert init_info.keys() == {"rank_offset", "world_size", "nccl_unique_id_b64", "packed"}
        assert (init_info["rank_offset"], init_info["world_size"], init_info["packed"]) == (1, 2, False)
        assert base64.b64decode(init_info["nccl_unique_id_b64"], validate=True) == bytes(range(128))
        self.wire._meet()

    def start_weight_update(self) -> None:
        self.new: dict[str, torch.Tensor] = {}

    def update_weights(self, update_info: dict[str, Any]) -> None:
        assert update_info.keys() == {"names", "dtype_names", "shapes"}
        for name, dtype_name, shape in zip(*update_info.values(), strict=True):
            data = self.wire.sent.get(timeout=PATIENCE)
            self.new[name] = torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype_name)).view(shape)

    def finish_weight_update(self) -> None:
        with self.lock:
            found = self.model.load_state_dict(self.new, strict=False)
            self.model.tie_weights()
        assert not found.unexpected_keys
        self.missing = found.missing_keys


@dataclass
class WiredEngines(Engines):
    wire: Wire = field(default_factory=Wire)
    refuses: str = ""

    def __call__(self, starting: Starting) -> WiredEngine:
        self.started.append(WiredEngine(starting, wire=self.wire, refuses=self.refuses))
        return self.started[-1]  # type: ignore[return-value]

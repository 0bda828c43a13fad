"""Weights over NCCL: the calls of both sides, their order and their arguments, and what stops them. Without a GPU: a
library of C functions stands in for libnccl."""

import json
import threading
from dataclasses import dataclass

import pytest
import torch

import skd
from skd.config import config_of
from skd.engines import Settings, Writers, writers_of
from skd.engines.nccl import connect
from skd.engines.transfer import Files, Nccl, _as_stored, _together
from skd.errors import ConfigError, RemoteError
from skd.policies import RolloutKey, Sampling, Student
from skd.sampling import Warp
from skd.types import Prompts
from tests.engines.wire import Wire, WiredEngines
from tests.tiny import save_tiny

GREEDY = Sampling(Warp(temperature=0.0), max_new_tokens=6, slots=4, evidence=False)
PROMPTS = Prompts(ids=[[5, 6], [7], [8, 9, 10]], sample_ids=[0, 1, 2])


@dataclass(frozen=True)
class Here(Nccl):
    """On this machine's CPU."""

    def place(self, device):
        return device


def wired(wire, **keys):
    engines = WiredEngines(wire=wire, **keys)
    return engines, Writers.of(Settings("python", slots=4, transfer=Here(link=wire.link)), engines)


def write(writers, pair, updates):
    return writers.student.write(pair, PROMPTS, GREEDY, RolloutKey(5, [0] * len(PROMPTS), updates=updates))


def write_and_renew(writers, pair):
    for updates in (0, 1):
        write(writers, pair, updates)


def move(pair):
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def pair_of(tmp_path, family="llama", **keys):
    save_tiny(tmp_path / "student", family, seed=2, hidden=16, padded_vocab=80)
    return skd.load_pair(None, tmp_path / "student", device="cpu", **keys)


@pytest.mark.parametrize(
    ("family", "keys"),
    [("llama", {}), ("gemma2", {"sample_dtype": "bfloat16"}), ("llama", {"adapters": skd.models.Adapters(r=2)})],
    ids=["plain", "tied, bfloat16", "adapters"],
)
def test_the_engine_has_the_new_weights_and_read_no_file(tmp_path, family, keys):
    wire, pair = Wire(), pair_of(tmp_path, family, **keys)
    engines, writers = wired(wire)
    write(writers, pair, 0)
    move(pair)
    pair.updated()
    rollout = write(writers, pair, 1)
    assert rollout.stats.probe_gap < (0.05 if "sample_dtype" in keys else 1e-4)
    ours = Student(GREEDY).rollout(pair, PROMPTS, RolloutKey(5, [0] * 3))
    if "sample_dtype" not in keys:
        assert [row.tolist() for row in rollout.response_ids] == [row.tolist() for row in ours.response_ids]
    engine = engines.last
    opened, renewal = (
        "/init_weight_transfer_engine",
        ["/start_weight_update", "/update_weights", "/finish_weight_update"],
    )
    assert engine.asked == [opened, *renewal]
    assert engine.starting.options == ("--weight-transfer-config", '{"backend": "nccl"}')
    assert list(engine.new) == list(json.loads(header_of(engine.starting.room / "model")))
    assert set(engine.missing) <= {"lm_head.weight"}
    kind = 9 if "sample_dtype" in keys else 7
    begun, sent = wire.calls[:3], wire.calls[3:]
    assert begun == [
        ("ncclGetUniqueId",),
        ("ncclCommInitRank", 2, bytes(range(128)), 0),
        ("ncclAllReduce", 1, 7, 0, 4711, 7),
    ]
    assert sent == [("ncclBroadcast", weight.numel(), kind, 0, 4711, 7) for weight in engine.new.values()]
    write(writers, pair, 2)
    assert engine.asked == [opened, *renewal, *renewal]
    writers.close()


def header_of(model):
    data = (model / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return json.dumps(header)


@pytest.mark.parametrize("path", ["/init_weight_transfer_engine", "/start_weight_update", "/update_weights"])
def test_what_the_engine_refuses_is_said_and_not_tried_again(tmp_path, path):
    wire, pair = Wire(), pair_of(tmp_path)
    engines, writers = wired(wire, refuses=path)
    with pytest.raises(RemoteError, match=r"vLLM for the rollouts at unix:.* HTTP 500: .*does not like it"):
        write_and_renew(writers, pair)
    assert engines.started[0].asked.count(path) == 1
    # What this process had begun for it is ended.
    assert wire.aborted.is_set() == (path != "/start_weight_update")
    wire.joined.abort()
    writers.close()
    assert not any(room.exists() for room in engines.rooms)


@pytest.mark.parametrize("name", ["ncclGetUniqueId", "ncclCommInitRank", "ncclAllReduce", "ncclBroadcast"])
def test_what_nccl_returns_ends_the_run(tmp_path, name):
    wire, pair = Wire(**{name: 5}), pair_of(tmp_path)
    _, writers = wired(wire)
    with pytest.raises(RemoteError, match=rf"SKD-V02\] {name}: returned 5 \(fault 5\); look at NCCL_DEBUG=INFO, or"):
        write_and_renew(writers, pair)
    wire.joined.abort()
    for _ in range(100):
        wire.sent.put(b"")
    writers.close()


def test_a_collective_that_does_not_end_is_left(tmp_path):
    wire, over = Wire(), threading.Event()
    link = wire.link(torch.device("cpu"))
    wire.joined.abort()
    link.join()
    with pytest.raises(RemoteError, match=r"SKD-V02\] vLLM for the rollouts: /x did not come to an end within 0.2 s"):
        _together(link, lambda call: over.wait(), skd.engines.transport.Call("/x"), lambda: over.wait(), 0.2)
    assert wire.aborted.is_set()
    assert wire.calls[-1] == ("ncclCommAbort", 4711)
    link.abort()
    assert wire.calls.count(("ncclCommAbort", 4711)) == 1
    over.set()


def test_a_gpu_of_its_own_is_needed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert Nccl().place(torch.device("cuda")) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert [Nccl().place(torch.device("cuda", n)).index for n in (0, 1)] == [2, 3]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"SKD-V02\] sampling\.rollouts\.transfer: .* and 4 are visible; make more"):
        Nccl().place(torch.device("cuda", 0))
    with pytest.raises(ConfigError, match="and there is none; make more of them visible, or write files"):
        Nccl().place(torch.device("cpu"))
    assert Files().place(torch.device("cuda", 3)) == torch.device("cuda", 3)


@pytest.mark.parametrize(
    "weights", [{"b": torch.zeros(2)}, {"a": torch.zeros(3)}, {"a": torch.zeros(2, dtype=torch.float16)}]
)
def test_weights_that_are_otherwise_than_in_the_files_are_refused(weights):
    with pytest.raises(ConfigError, match="is nccl, and a is not in this model as it is in its files; write files"):
        _as_stored(weights, {"a": (2,)})


def test_weights_go_in_the_order_of_the_files_and_in_one_piece():
    weights = {"tied": torch.zeros(2), "b": torch.arange(6.0).view(2, 3).t(), "a": torch.zeros(2)}
    found = _as_stored(weights, {"a": (2,), "b": (3, 2)})
    assert list(found) == ["a", "b"]
    assert found["b"].is_contiguous()
    assert torch.equal(found["b"], weights["b"])


def test_without_the_library_the_way_out_is_said(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(ConfigError, match=r"SKD-V02\] .*: is nccl, and libnccl\.so\.2: cannot open .*; install"):
        connect(torch.device("cpu"))


def test_a_config_says_which(tmp_path):
    values = {"teacher": "t", "student": "s", "method": "on_policy", "data": {"train": "rows.json"}, "output": "run"}
    values["sampling"] = {"rollouts": {"engine": "vllm", "python": "python"}}
    assert writers_of(config_of(values)).student.settings.transfer == Files()
    values["sampling"]["rollouts"]["transfer"] = "nccl"
    assert writers_of(config_of(values)).student.settings.transfer == Nccl()

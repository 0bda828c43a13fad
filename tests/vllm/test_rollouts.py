"""Training on responses that vLLM itself writes, with the student's weights of each step."""

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import skd
from skd.engines import Settings, Writers
from skd.engines.transfer import Nccl
from skd.errors import RemoteError
from skd.policies import RolloutKey, Sampling, Student
from skd.sampling import Warp
from skd.types import Prompts
from tests.tiny import save_tiny
from tests.train.conftest import ROWS
from tests.vllm.measure import cpu_seconds, own_cpu_seconds, processes

PROMPTS = Prompts(ids=[[2 + i % 50, 3 + i % 7, 4 + i % 5][: 1 + i % 3] for i in range(96)], sample_ids=list(range(96)))
CAP = 24


@pytest.fixture(scope="module")
def python():
    path = os.environ.get("SKD_VLLM_PYTHON")
    if not path:
        pytest.skip("SKD_VLLM_PYTHON names no python with vLLM")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return path


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Heads of 32 numbers, and a student with more rows in its head than there are ids."""
    directory = tmp_path_factory.mktemp("rollouts")
    save_tiny(directory / "teacher", "llama", seed=1, hidden=128)
    save_tiny(directory / "student", "llama", seed=2, hidden=128, padded_vocab=80)
    return directory


@pytest.fixture(scope="module")
def pair(room):
    return skd.load_pair(room / "teacher", room / "student", device="cpu")


@pytest.fixture(scope="module")
def writer(python):
    writers = Writers.of(Settings(python, slots=32))
    yield writers.student
    writers.close()


def key(updates, seed=5):
    return RolloutKey(seed, [0] * len(PROMPTS), updates=updates)


def lists(tensors):
    return [tensor.tolist() for tensor in tensors]


def measured(pair, writer, sampling, figures, name):
    """Responses by the sampler and by vLLM; CPU seconds, tokens per second and seconds of a renewal are figures."""
    writer.write(pair, PROMPTS, sampling, key(0))
    number, rollouts = writer._running.child.process.pid, []
    for who, write in (("own", Student(sampling).rollout), ("vllm", None)):
        started, ours, theirs = time.perf_counter(), own_cpu_seconds(), cpu_seconds(number)
        rollout = write(pair, PROMPTS, key(0)) if write else writer.write(pair, PROMPTS, sampling, key(0))
        seconds = time.perf_counter() - started
        figures[f"{name}_{who}_cpu_seconds"] = round(own_cpu_seconds() - ours + cpu_seconds(number) - theirs, 2)
        figures[f"{name}_{who}_tokens_per_second"] = round(rollout.num_tokens / seconds)
        rollouts.append(rollout)
    renewed = writer.write(pair, PROMPTS.select([0]), sampling, RolloutKey(5, [0], updates=1))
    figures[f"{name}_renewal_seconds"] = round(renewed.stats.seconds_sync, 3)
    figures[f"{name}_parameters"] = sum(parameter.numel() for parameter in pair.student.parameters())
    figures[f"{name}_tokens"] = rollouts[0].num_tokens
    return rollouts


def test_greedy_responses_are_the_sampler_s_own_and_what_they_cost(pair, writer, figures):
    sampling = Sampling(Warp(temperature=0.0), max_new_tokens=CAP, slots=32, stop_strings=("t17",), evidence=False)
    own, vllm = measured(pair, writer, sampling, figures, "rollout_tiny")
    differing = sum(a != b for a, b in zip(lists(own.response_ids), lists(vllm.response_ids), strict=True))
    figures["rollouts_differing"] = differing
    # A near-tie may fall the other way and changes one response.
    assert differing <= 1
    assert {True, False} == set(vllm.truncated.tolist())
    assert vllm.stats.probe_gap < 1e-4


def test_a_larger_model_and_what_it_costs(python, room, figures):
    """Random weights of a size at which the model costs more than the transport."""
    large = save_tiny(room / "large", "llama", seed=3, hidden=512, layers=8, vocab_size=8192)
    pair = skd.load_pair(None, large, device="cpu")
    writers = Writers.of(Settings(python, slots=32))
    sampling = Sampling(Warp(temperature=0.0), max_new_tokens=CAP, slots=32, evidence=False)
    own, vllm = measured(pair, writers.student, sampling, figures, "rollout_large")
    writers.close()
    assert vllm.num_tokens == own.num_tokens
    assert vllm.stats.probe_gap < 1e-3


def test_draws_repeat_with_the_seed_and_follow_the_model(pair, writer):
    sampling = Sampling(Warp(), max_new_tokens=CAP, slots=32, evidence=False, student_logp=True)
    one, two, other = (writer.write(pair, PROMPTS, sampling, key(0, seed)) for seed in (5, 5, 6))
    same = sum(a == b for a, b in zip(lists(one.response_ids), lists(two.response_ids), strict=True))
    # No equal bits are promised, and on one idle machine they come.
    assert same >= len(PROMPTS) - 2
    assert lists(one.response_ids) != lists(other.response_ids)
    ours = Student(sampling).rollout(pair, PROMPTS, key(0))
    means = [sum(float(row.sum()) for row in r.student_logp) / r.num_tokens for r in (one, ours)]
    assert abs(means[0] - means[1]) < 0.15


def test_weights_are_renewed_in_the_running_engine(room, pair, writer, figures):
    sampling = Sampling(Warp(temperature=0.0), max_new_tokens=CAP, slots=32, evidence=False)
    other = save_tiny(room / "other", "llama", seed=7, hidden=128, padded_vocab=80)
    moved = skd.load_pair(room / "teacher", other, device="cpu")
    process, before = writer._running.child.process, writer.write(pair, PROMPTS, sampling, key(2))
    renewed = writer.write(moved, PROMPTS, sampling, key(3))
    figures["probe_gap"] = renewed.stats.probe_gap
    assert renewed.versions == [3] * len(PROMPTS)
    assert writer._running.child.process is process
    own = lists(Student(sampling).rollout(moved, PROMPTS, key(3)).response_ids)
    assert sum(a != b for a, b in zip(own, lists(renewed.response_ids), strict=True)) <= 1
    assert lists(renewed.response_ids) != lists(before.response_ids)


class NoLink:
    """In place of NCCL, which has nothing to join here."""

    id = bytes(128)

    def __init__(self, device):
        pass

    def join(self):
        pass

    def send(self, weights):
        pass

    def abort(self):
        pass


@dataclass(frozen=True)
class AsFarAsHere(Nccl):
    """Tries both collectives and goes on, and keeps the log."""

    link: Any = NoLink
    log: list[str] = field(default_factory=list)

    def place(self, device):
        return device

    def opened(self, model, device, ask, seconds):
        def lenient(call):
            with suppress(RemoteError):
                ask(call)

        renew = super().opened(model, device, lenient, seconds)

        def renewed(pair, changed):
            renew(pair, changed)
            self.log.append((model.parent / "log").read_text(errors="replace"))

        return renewed


def test_vllm_reads_what_nccl_would_be_told(pair, python):
    """Without a GPU its worker comes as far as looking for one; what it is told until then, it understood."""
    transfer = AsFarAsHere()
    writers = Writers.of(Settings(python, slots=4, transfer=transfer))
    sampling = Sampling(Warp(temperature=0.0), max_new_tokens=2, evidence=False)
    one = PROMPTS.select([0])
    writers.student.write(pair, one, sampling, RolloutKey(5, [0]))
    with suppress(RemoteError):  # its weights are those of an update that did not end
        writers.student.write(pair, one, sampling, RolloutKey(5, [0], updates=1))
    writers.close()
    (log,) = transfer.log
    assert "Cannot access accelerator device when none is available" in log
    assert "NCCL weight transfer not initialized" in log
    assert '"POST /start_weight_update HTTP/1.1" 200 OK' in log
    assert "Invalid init_info" not in log
    assert "Invalid update_info" not in log


def test_a_killed_engine_costs_nothing(python, room, tmp_path, figures):
    def train(output, callbacks=()):
        pair = skd.load_pair(room / "teacher", room / "student", device="cpu")
        rollouts = {"engine": "vllm", "python": python}
        config = {
            "method": "on_policy",
            "teacher": str(room / "teacher"),
            "student": str(room / "student"),
            "data": {"train": "rows.json"},
            "sampling": {"max_new_tokens": 5, "slots": 8, "student": {"temperature": 0.0}, "rollouts": rollouts},
            "train": {"max_steps": 6, "batch_size": 4, "lr": 0.01, "eps": 0.01, "trackers": [], "validate_every": None},
            "output": str(tmp_path / output),
        }
        return skd.train(config, pair=pair, prompts=ROWS, display=False, callbacks=callbacks)

    def kill(row):
        if row["step"] == 3:
            for number in processes(os.getpid()):
                words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
                if b"--uds" in words and words[1] == b"-m":
                    os.killpg(number, signal.SIGKILL)

    whole = train("whole").run_dir
    with pytest.raises(RemoteError, match="SKD-V06") as caught:
        train("killed", [kill])
    assert caught.value.exit_code == 6
    assert "step-3" in [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()]
    killed = train("killed").run_dir
    figures["weight_difference_after_killed_engine"] = difference(whole, killed)
    assert figures["weight_difference_after_killed_engine"] < 1e-3
    assert (killed / "trained.jsonl").read_bytes() == (whole / "trained.jsonl").read_bytes()
    steps = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert [row["staleness"] for row in steps if "lr" in row] == [0] * 6


def difference(one, other):
    weights, expected = (
        load_file(Path(run) / "checkpoints" / "step-6" / "student.safetensors") for run in (one, other)
    )
    return max(float((weights[name] - expected[name]).abs().max()) for name in expected)

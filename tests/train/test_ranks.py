import errno
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from skd.errors import NumericsError, Problem, SkdError
from skd.faults import hooked, point
from tests.train.conftest import run_train


def run_as_ranks(config, world_size, hook=lambda rank, name: None):
    """The same run in several processes; messages of errors go to ``error-RANK``."""

    def work(rank):
        try:
            with hooked(lambda name: hook(rank, name)):
                run_train(config)
        except SkdError as error:
            Path(f"{config['output']}-error-{rank}").write_text(str(error))
            raise

    return as_ranks(work, world_size)


def as_ranks(work, world_size):
    """``work(rank)`` in forked processes that find each other over gloo; returns their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
                AcceleratorState._reset_state(reset_partial_state=True)
                work(rank)
                code = 0
            except SkdError as error:
                code = error.exit_code
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("batch_size", [3, 1])
def test_two_ranks_train_what_one_does(settings, tmp_path, batch_size):
    keys = {"student": "steady", "batch_size": batch_size, "max_steps": 2, "micro_batch_tokens": 8}
    # A large eps keeps the updates smooth in the gradients: Adam's own would turn rounding near 0 into whole steps.
    keys |= {"lr": 0.01, "eps": 0.01, "warmup": 0.0}
    alone, together = ({**settings(**keys), "output": str(tmp_path / name)} for name in ("alone", "together"))
    run_train(alone)
    assert run_as_ranks(together, 2) == [0, 0]
    weights, shared = (
        load_file(Path(config["output"]) / "checkpoints" / "step-2" / "student.safetensors")
        for config in (alone, together)
    )
    assert max((weights[name] - shared[name]).abs().max().item() for name in weights) <= 1e-5
    for log in ("metrics", "trained"):
        rows, shared_rows = (
            [json.loads(line) for line in (Path(config["output"]) / f"{log}.jsonl").read_text().splitlines()]
            for config in (alone, together)
        )
        for row, shared_row in zip(rows, shared_rows, strict=True):
            for key in ("step", "tokens", "acceptance_rate", "epochs", "sample_ids"):
                assert row.get(key) == shared_row.get(key)


def failing(fail, rank):
    """A hook by which the process ``rank`` fails after its second step."""
    left = [2]

    def hook(mine, name):
        left[0] -= name == "step"
        if mine == rank and not left[0]:
            fail()

    return hook


def raise_fault():
    raise NumericsError(Problem("SKD-T01", "step 2", "the loss is not finite", "lower train.lr"))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_others_of_a_killed_process_end_in_plain_words(settings, rank):
    config = settings(max_steps=20)
    codes = run_as_ranks(config, 2, failing(lambda: os.kill(os.getpid(), signal.SIGKILL), rank))
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 6
    assert re.fullmatch(
        rf"error\[SKD-P02\] rank {1 - rank}: rank {rank} \(last heard of at step \d+, \S+\.py:\d+ .+\) ended without a "
        "word: it was killed; look at its output and at the memory of its machine, and resume with the same command",
        Path(f"{config['output']}-error-{1 - rank}").read_text(),
    )
    assert run_as_ranks(config, 2) == [0, 0]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_others_of_a_process_that_fails_name_it_and_its_cause(settings, rank):
    config = settings(max_steps=20)
    codes = run_as_ranks(config, 2, failing(raise_fault, rank))
    assert (codes[rank], codes[1 - rank]) == (7, 6)
    assert (
        Path(f"{config['output']}-error-{1 - rank}")
        .read_text()
        .startswith(f"error[SKD-P02] rank {1 - rank}: stopped because rank {rank} did: error[SKD-T01] step 2: the loss")
    )


@pytest.mark.parametrize(("rank", "fault"), [(0, "stop"), (1, "sleep")])
def test_a_stuck_process_is_named_and_takes_the_other_with_it(settings, rank, fault):
    config = settings(max_steps=20, rank_timeout_seconds=15)

    def hook(mine, name):
        if mine == rank and name == "backward":
            os.kill(os.getpid(), signal.SIGSTOP) if fault == "stop" else time.sleep(3600)

    codes = run_as_ranks(config, 2, hook)
    assert codes[1 - rank] == 6
    # One that only sleeps sees itself that it is late, and may be first to say so.
    assert codes[rank] in ((-signal.SIGKILL,) if fault == "stop" else (6, -signal.SIGKILL))
    cause = json.loads((Path(config["output"]) / ".first-cause").read_text())["cause"]
    # Of one that was stopped as a whole the last word may be half a second old.
    place = r"step 1, train/step\.py:\d+ _gradients" if fault == "sleep" else r"step \d, \S+\.py:\d+ .+"
    late = rf"rank {rank} \(last heard of at {place}\) made no progress for 15 s \(train\.rank_timeout_seconds\)"
    assert re.match(rf"error\[SKD-P03\] rank \d: {late}; ", cause)


def test_a_process_that_samples_is_ended_when_another_is_killed(settings):
    config = settings(max_steps=20)

    def hook(mine, name):
        if name == "round" and mine == 0:
            while True:  # a sampler that goes on and on
                time.sleep(0.05)
                point("another round")
        if name == "round":
            os.kill(os.getpid(), signal.SIGKILL)

    assert run_as_ranks(config, 2, hook) == [6, -signal.SIGKILL]
    assert "rank 1 (last heard of at " in Path(f"{config['output']}-error-0").read_text()


def test_a_rank_with_more_to_do_is_waited_for_beyond_the_limit(settings):
    """Of unequal lengths: the limit is for a process that makes no progress, not for one that waits."""
    config = settings(max_steps=1, rank_timeout_seconds=15)
    rounds = [0]

    def hook(mine, name):
        rounds[0] += name == "round"
        if mine == 0 and name == "round" and rounds[0] == 1:
            for _ in range(42):
                time.sleep(0.4)
                point("another round")

    assert run_as_ranks(config, 2, hook) == [0, 0]


def test_a_process_that_works_alone_for_long_is_told_of(settings, capfd):
    config = settings(max_steps=1, rank_timeout_seconds=16)

    sleeps = [10]

    def measure(pair):
        time.sleep(sleeps.pop() if sleeps else 0)
        return {}

    assert as_ranks(lambda rank: run_train(config, measure=measure), 2) == [0, 0]
    said = re.findall(r"warning\[SKD-P05\] (.+)", capfd.readouterr().err)
    late = r"rank 0: rank 0 \(last heard of at train/loop\.py:\d+ _measured\) made no progress for 8 s"
    assert len(said) == 1
    assert re.fullmatch(late + "; the run ends after 16 s, which is train.rank_timeout_seconds", said[0])


def test_a_signal_to_one_of_two_ends_both_after_the_step(settings):
    config = settings(max_steps=20)
    hook = failing(lambda: os.kill(os.getpid(), signal.SIGTERM), 1)

    def work(rank):
        with hooked(lambda name: hook(rank, name)), pytest.raises(SystemExit) as caught:
            run_train(config)
        assert caught.value.code == 128 + signal.SIGTERM

    assert as_ranks(work, 2) == [0, 0]
    assert [path.name for path in (Path(config["output"]) / "checkpoints").iterdir()] == ["step-2"]


def test_a_save_that_fails_on_one_rank_leaves_no_checkpoint(settings, monkeypatch):
    monkeypatch.setattr("skd.train.retry.RETRY_SECONDS", ())
    config = settings(max_steps=20)

    def hook(mine, name):
        if name == "save.manifest":
            raise OSError(errno.ENOSPC, "No space left on device")

    assert run_as_ranks(config, 2, hook) == [8, 6]
    assert list((Path(config["output"]) / "checkpoints").iterdir()) == []
    said = Path(f"{config['output']}-error-1").read_text()
    assert said.startswith("error[SKD-P02] rank 1: stopped because rank 0 did: error[SKD-K03] ")

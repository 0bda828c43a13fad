import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from skd.errors import NumericsError, Problem, SkdError
from skd.faults import hooked
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

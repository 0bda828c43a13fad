"""The engine's process: what it is started with, how its end is told, and that it does not outlive what started it."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

import skd
from skd.check.server import check_rollouts
from skd.config import RolloutsConfig, config_of
from skd.engines import child, keeper
from skd.engines.child import Starting, launch, new_room, remove, wait_for
from skd.errors import RemoteError

PATIENCE = 120.0
"""Seconds for what takes a fraction of one."""


def fake_python(tmp_path, program):
    """Something that is started as ``python -m vllm...`` and runs ``program``."""
    (tmp_path / "program.py").write_text("import os, sys, time, subprocess\n" + textwrap.dedent(program))
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{tmp_path / "program.py"}" "$@"\n')
    path.chmod(0o700)
    return str(path)


def starting(python, device="cpu"):
    return Starting(python, new_room(), "float32", 64, 8, torch.device(device), 0.3)


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(number):
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def test_an_engine_that_does_not_start_says_why(tmp_path):
    begun = starting(
        fake_python(
            tmp_path,
            """
            print("(Worker) ValueError: No common block size for 16", flush=True)
            print("(APIServer) RuntimeError: Engine core initialization failed", flush=True)
            raise SystemExit(3)
            """,
        )
    )
    process = launch(begun)
    with pytest.raises(RemoteError, match=r"SKD-V06\].* ended with status 3: \(Worker\) ValueError: No common block"):
        wait_for(process, begun, PATIENCE)
    remove(process, begun.room)
    assert not begun.room.exists()


def test_an_engine_that_never_answers_is_given_up(tmp_path):
    begun = starting(fake_python(tmp_path, "time.sleep(600)"))
    process = launch(begun)
    with pytest.raises(RemoteError, match=r"SKD-V06\].* did not answer within 0.1 seconds.*start_seconds"):
        wait_for(process, begun, 0.1)
    remove(process, begun.room)
    assert process.poll() is not None


def test_it_listens_in_its_own_directory_and_gets_no_keys(monkeypatch):
    names = {"HF_TOKEN", "WANDB_API_KEY", "SKD_TEACHER_TOKEN", "RANK", "MASTER_PORT", "PYTHONPATH"}
    for name in names:
        monkeypatch.setenv(name, "something")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    begun = starting("python")
    command, environment = begun.command, begun.environment(os.environ)
    assert command[command.index("--uds") + 1] == str(begun.room / "socket")
    assert not {"--host", "--port", "--trust-remote-code"} & set(command)
    assert begun.room.stat().st_mode & 0o777 == 0o700
    assert "--disable-uvicorn-access-log" in command
    assert len(str(begun.socket)) < 100
    assert not {"HF_TOKEN", "WANDB_API_KEY", "SKD_TEACHER_TOKEN", "RANK", "MASTER_PORT", "PYTHONPATH"} & set(
        environment
    )
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"
    begun.room.rmdir()


@pytest.mark.parametrize(
    ("listed", "device", "expected"), [("", "cuda", "0"), ("4, 6", "cuda:1", "6"), ("5", "cuda", "5")]
)
def test_it_shares_the_gpu_of_this_process(listed, device, expected):
    begun = starting("python", device)
    assert begun.environment({"CUDA_VISIBLE_DEVICES": listed})["CUDA_VISIBLE_DEVICES"] == expected
    assert begun.command[begun.command.index("--gpu-memory-utilization") + 1] == "0.3"
    begun.room.rmdir()


def test_it_ends_with_whatever_started_it(tmp_path):
    """Killed, not asked: nothing of this process gets to run. The engine's own children end, too."""
    numbers = tmp_path / "numbers"
    python = fake_python(
        tmp_path,
        f"""
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        with open({str(numbers) + ".new"!r}, "w") as file:
            file.write(f"{{os.getpid()}} {{child.pid}}")
        os.rename({str(numbers) + ".new"!r}, {str(numbers)!r})
        time.sleep(600)
        """,
    )
    room = new_room()
    (room / "model").write_text("weights")
    keep = [sys.executable, "-S", str(Path(keeper.__file__)), str(room), python]
    parent = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import subprocess; subprocess.Popen({keep!r}, stdin=subprocess.PIPE).wait()"]
    )
    until(numbers.exists)
    parent.kill()
    parent.wait()
    until(lambda: all(gone(int(number)) for number in numbers.read_text().split()))
    until(lambda: not room.exists())


def test_the_command_s_status_is_the_keeper_s(tmp_path):
    python = fake_python(tmp_path, "raise SystemExit(int(sys.argv[1]))")
    keep = [sys.executable, "-S", str(Path(keeper.__file__)), str(tmp_path / "room"), python]
    for status in (0, 7):
        with subprocess.Popen([*keep, str(status)], stdin=subprocess.PIPE) as process:
            assert process.wait(PATIENCE) == status


def test_the_last_words_are_not_all_of_the_log(tmp_path):
    log = tmp_path / "log"
    assert child._said(log) == ""
    log.write_bytes(b"\xff\x1b[31mstarting\n")
    assert "\x1b" not in child._said(log)
    log.write_text("x" * 10_000)
    assert len(child._said(log)) < 400
    with log.open("w") as file:  # of a long run: its end is read alone
        file.write("Error: the first\n")
        file.seek(2**40)
        file.write("\nError: the last\n")
    assert child._said(log) == ": Error: the last"


def test_the_python_of_an_engine_is_tried_by_the_check(tmp_path):
    found = check_rollouts(RolloutsConfig(engine="vllm", python=str(tmp_path / "none")))
    assert "SKD-V01" in found.lines()[1]
    assert "does not run" in found.lines()[1]
    # This environment has no vLLM: it wants other versions of libraries.
    found = check_rollouts(RolloutsConfig(engine="vllm", python=sys.executable))
    assert "finds no package vllm" in found.lines()[1]
    found = check_rollouts(RolloutsConfig(engine="vllm", python=fake_python(tmp_path, "")))
    assert found.state == "ok"
    found = check_rollouts(RolloutsConfig(engine="vllm", python=fake_python(tmp_path, ""), transfer="nccl"))
    assert "SKD-V02" in found.lines()[1]
    assert "takes a GPU for each engine" in found.lines()[1]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"method": "skd"},
            r"given, and method skd \(policy interleaved\) has nothing that one model",
        ),
        ({"method": "sft", "teacher": None}, "has nothing that one model writes alone"),
        (
            {"policy": "teacher", "teacher": {"kind": "average"}},
            "policy teacher is to write with a teacher that is no plain",
        ),
        (
            {"policy": "teacher", "teacher": {"engine": "vllm", "url": "http://127.0.0.1:8000"}},
            "is to write with a teacher that is no plain model here",
        ),
    ],
)
def test_an_engine_that_could_write_nothing_is_refused(keys, expected):
    with pytest.raises(skd.ConfigError, match=expected):
        config_of(config(**keys))


def config(**keys):
    rollouts = {"engine": "vllm", "python": "vllm/bin/python"}
    start = {"method": "on_policy", "teacher": "t", "student": "s", "data": {"train": "rows.json"}}
    return {**start, "sampling": {"rollouts": rollouts}, **keys}


def test_an_engine_may_write_one_part_of_a_mixture():
    parts = [{"weight": 1, "policy": "data_set"}, {"weight": 1, "policy": "student"}]
    read = config_of(config(policy={"kind": "mixture", "parts": parts}))
    assert read.sampling.rollouts.max_staleness == 0

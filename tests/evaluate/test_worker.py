"""The process that grades: limits hold, and it is there again afterwards."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from skd.evaluate import worker_process
from skd.evaluate.worker import MathVerify

TOWER = "10^{10^{10}}"


@pytest.fixture(scope="module")
def worker():
    with MathVerify(limit_seconds=1.0) as worker:
        yield worker


def test_equal_different_and_a_limit_on_time(worker):
    assert worker.verdict(r"\frac{1}{2}", "0.5") == "equal"
    assert worker.verdict("x", "y") == "different"
    assert worker.verdict(TOWER, "7") == "timeout"
    assert worker.verdict(r"\frac{1}{2}", "0.5") == "equal"


def test_it_works_off_the_main_thread(worker):
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.extend([worker.verdict(TOWER, "7"), worker.verdict("x", "x")]))
    thread.start()
    thread.join()
    assert verdicts == ["timeout", "equal"]


def test_a_keeper_that_died_is_started_again(worker):
    assert worker.verdict("x", "x") == "equal"
    os.kill(worker._process.pid, signal.SIGKILL)
    assert worker.verdict("x", "x") == "grader-error"
    assert worker.verdict("x", "x") == "equal"


def test_too_little_memory_is_a_grader_error():
    with MathVerify(limit_seconds=0.5, memory_bytes=1 << 28) as worker:
        assert worker.verdict("2^{10^{10}}", "7") in ("grader-error", "different", "timeout")
        assert worker.verdict("x", "x") == "equal"


def test_close_leaves_no_process():
    worker = MathVerify()
    assert worker.verdict("x", "x") == "equal"
    group = worker._process.pid
    worker.close()
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


ATTACKS = [
    "import socket; socket.socket().connect(('127.0.0.1', 9))",
    "import subprocess; subprocess.Popen(['true'])",
    "import os; os.system('true')",
    "import os; os.fork()",
    "open({path!r}, 'w')",
    "import os; os.open({path!r}, os.O_WRONLY | os.O_CREAT)",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_child_can_neither_write_nor_reach_out(attack, tmp_path):
    """What a child would do if code did run in it."""
    code = f"""
from skd.evaluate import worker_process as p
import os, socket, subprocess
def judge(answer, reference):
    {attack.format(path=str(tmp_path / "canary"))}
    return "equal"
child = p._Child(judge, 5.0, 1 << 32)
print(child.ask(b'{{"answer": "1", "reference": "1"}}\\n', 5.0), child.end())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"b'' {worker_process.FORBIDDEN_EXIT}", done.stderr
    assert not list(tmp_path.iterdir())

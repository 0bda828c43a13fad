import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from skd.train.signals import StopSignal

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """The tests themselves may run under nohup, which their children would inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_first_signal_is_only_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.number is None
        os.kill(os.getpid(), number)
        assert stop.number == number
    assert signal.getsignal(number) == before


def test_second_signal_ends_the_process_at_once():
    child = os.fork()
    if child == 0:
        with StopSignal():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.number is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def run_under(wrapper, tmp_path):
    """Start a run, hang up once it has taken a step, and return its exit code and the steps it took."""
    output = tmp_path / "run"
    command = [sys.executable, "-m", "skd", "train", "recipes/number_words/supervised_kd.yaml", f"output={output}"]
    small = ["train.max_steps=40", "train.batch_size=2", "train.validate_every=null", "data.validation.size=2"]
    process = subprocess.Popen([*wrapper, *command, *small], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    metrics = output / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 1):
        pass
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=120)
    return process.returncode, max(int(path.name[5:]) for path in (output / "checkpoints").iterdir())


def test_a_run_survives_nohup(tmp_path):
    assert run_under(["nohup"], tmp_path) == (0, 40)


def test_without_nohup_a_hangup_leaves_a_checkpoint(tmp_path):
    code, step = run_under([], tmp_path)
    assert code == 128 + signal.SIGHUP
    assert 0 < step < 40


def test_outside_the_main_thread_it_does_nothing():
    found = []

    def use():
        with StopSignal() as stop:
            found.append(stop.number)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [None]

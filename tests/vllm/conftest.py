"""A real vLLM, in an environment of its own: SKD_VLLM_PYTHON names its python, which has skd's libraries, too.

Without one the tests are skipped. ``make test-vllm`` makes the environment, and ends with the figures in one line.
"""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

import skd
from tests.tiny import save_tiny

FIGURES: dict[str, object] = {}
STARTING = 600
"""Seconds that a server may take until it answers."""


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        failures = len(terminalreporter.stats.get("failed", ())) + len(terminalreporter.stats.get("error", ()))
        terminalreporter.write_line(f"FIGURES {json.dumps({'failures': failures, **FIGURES}, sort_keys=True)}")


@pytest.fixture
def figures():
    """What is printed at the end, by name."""
    return FIGURES


class Server:
    """A process that can be killed and started again at the same address."""

    def __init__(self, python: str, model: Path, log: Path) -> None:
        self._python, self._model, self._log = python, model, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        keys = {"--model": self._model, "--served-model-name": "teacher", "--dtype": "float32", "--port": self._port}
        keys |= {"--max-logprobs": 64, "--max-model-len": 128, "--host": "127.0.0.1"}
        options = [str(part) for pair in keys.items() for part in pair]
        command = [self._python, "-m", "vllm.entrypoints.openai.api_server", *options, "--enforce-eager"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + STARTING
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"vLLM did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    @property
    def number(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> Path:
    """A pair with heads of 32 numbers, the smallest that vLLM's attention takes on a CPU."""
    room = tmp_path_factory.mktemp("served")
    save_tiny(room / "teacher", "llama", seed=1, hidden=128)
    save_tiny(room / "student", "llama", seed=2, hidden=16)
    return room


@pytest.fixture(scope="session")
def server(directory):
    python = os.environ.get("SKD_VLLM_PYTHON")
    if not python:
        pytest.skip("SKD_VLLM_PYTHON names no python with vLLM")
    running = Server(python, directory / "teacher", directory / "vllm.log")
    try:
        running.start()
        with urllib.request.urlopen(f"{running.url}/version", timeout=5) as response:
            FIGURES["vllm"] = json.loads(response.read())["version"]
        yield running
    finally:
        running.kill()


@pytest.fixture
def local_pair(directory):
    return skd.load_pair(directory / "teacher", directory / "student", device="cpu")


@pytest.fixture
def served_pair(server, directory):
    return skd.load_pair(skd.VllmServer(server.url, top=20), directory / "student", device="cpu")

"""A canary: a file that hostile input would make if any of its code ran."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.check.bench import Bench, build, save_models

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def bench(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A right run in the current directory."""
    (tmp_path / "bench").mkdir()
    monkeypatch.chdir(tmp_path / "bench")
    return build(models, tmp_path / "bench")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A path at which nothing may appear."""
    return tmp_path / "canary"


@pytest.fixture
def skd(tmp_path: Path) -> Run:
    """skd(*arguments, **environment): a whole process of the command, its temporary files under the test's."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "tmp").mkdir(exist_ok=True)
        settings = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), **environment}
        command = [sys.executable, "-m", "skd", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=settings, check=False)

    return run

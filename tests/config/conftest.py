from collections.abc import Callable
from pathlib import Path

import pytest

from skd.config import RunConfig, load_config
from skd.errors import ConfigError

BASE = "teacher: t\nstudent: s\ndata: {train: rows.json}\n"
"""The shortest valid file; tests put their lines before it."""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """load(text, *overrides): the config of a file train.yaml with this text."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str | bytes, *overrides: str) -> RunConfig:
        Path("train.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config("train.yaml", list(overrides))

    return load_text


@pytest.fixture
def problems(load: Callable[..., RunConfig]) -> Callable[..., list[str]]:
    """problems(text, *overrides): the messages for a file that must be refused."""

    def messages(text: str | bytes, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return [str(problem) for problem in caught.value.problems]

    return messages

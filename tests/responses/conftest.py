"""A tiny pair, rows as text, and responses written to files three prompts at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

import skd.generate
from skd.config import config_of
from skd.generate import generate_responses
from skd.responses import Index
from skd.train.run import Run
from skd.train.setup import prepare
from tests.tiny import save_tiny

Config = dict[str, Any]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    save_tiny(directory / "teacher", "llama", seed=1, hidden=32)
    save_tiny(directory / "student", "llama", seed=2, hidden=16)
    return directory


@pytest.fixture
def config(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(skd.generate, "SHARD_PROMPTS", 3)
    rows = [
        {"prompt": " ".join(f"t{2 + (i + j) % 9}" for j in range(1 + i % 3)), "response": f"t{5 + i % 3} t6 t7"}
        for i in range(10)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return {
        "method": "skd",
        "teacher": str(models / "teacher"),
        "student": str(models / "student"),
        "data": {"train": str(tmp_path / "rows.json")},
        "policy": {"kind": "interleaved", "gate": {"kind": "top_k", "k": 20}, "block": 3},
        "sampling": {"max_new_tokens": 6, "slots": 4, "student": {"temperature": 1.0, "top_p": 1.0}},
        "train": {"max_steps": 3, "batch_size": 4, "lr": 0.01, "seed": 3, "micro_batch_tokens": 16},
        "output": str(tmp_path / "run"),
    }


@pytest.fixture
def write(config: Config, tmp_path: Path) -> Callable[..., Path]:
    """write(top_k, **changes): the directory with the responses of the config."""

    def written(top_k: int | None = None, name: str = "responses", **changes: Any) -> Path:
        generate(config, tmp_path / name, top_k, **changes)
        return tmp_path / name

    return written


def generate(config: Config, directory: Path, top_k: int | None, **changes: Any) -> Index:
    return generate_responses(config_of({**config, **changes}), directory, top_k, display=False)


def stored(config: Config, directory: Path, teacher: str | None = None, **keys: Any) -> Config:
    """A config that trains from the files, without a teacher unless said."""
    changed = {**config, "teacher": teacher, "policy": "data_set", "data": {"train": from_files(directory)}}
    return {**changed, **keys}


def from_files(directory: Path) -> Config:
    return {"kind": "responses", "path": str(directory)}


def open_run(config: Config) -> Run:
    Path(config["output"]).mkdir(parents=True, exist_ok=True)
    return prepare(config_of(config), Accelerator(mixed_precision="no", cpu=True))


def content(directory: Path) -> dict[str, bytes]:
    """Everything in a directory but the lock."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != ".lock"}

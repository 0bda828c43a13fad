"""A tiny pair and a data set for whole runs: a step takes a fraction of a second."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

import skd
from skd.config import config_of
from skd.train import TrainResult, train
from skd.train.run import Run
from skd.train.setup import prepare
from skd.types import Prompts
from tests.tiny import save_tiny

ROWS = Prompts(
    ids=[[2 + i % 9, 3 + i % 7, 4 + i % 5][: 1 + i % 3] for i in range(10)],
    sample_ids=list(range(10)),
    references=[[5 + i % 3, 6, 7, 8, 1][i % 5 :] for i in range(10)],
)
"""Prompts of 1 to 3 tokens, references of 1 to 5."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a teacher, a student with dropout, and the same student without."""
    directory = tmp_path_factory.mktemp("models")
    save_tiny(directory / "teacher", "llama", seed=1, hidden=32)
    save_tiny(directory / "student", "llama", seed=2, hidden=16, attention_dropout=0.2)
    save_tiny(directory / "steady", "llama", seed=2, hidden=16)
    return directory


@pytest.fixture
def settings(models: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A configuration as plain values; keywords go to its ``train`` section."""

    def build(*, method: str = "skd", student: str = "student", **train_keys: Any) -> dict[str, Any]:
        keys = {"max_steps": 6, "batch_size": 4, "lr": 0.01, "seed": 3, "save_every": 2, "samples_every": 2}
        return {
            "method": method,
            "teacher": str(models / "teacher"),
            "student": str(models / student),
            "data": {"train": "rows.json"},
            "sampling": {"max_new_tokens": 5, "slots": 4, "student": {"temperature": 1.0, "top_p": 1.0}},
            "train": {**keys, "validate_every": 3, "validation_prompts": 4, "trackers": [], **train_keys},
            "output": str(tmp_path / "run"),
        }

    return build


def open_pair(config: dict[str, Any]) -> skd.Pair:
    return skd.load_pair(config["teacher"], config["student"], device="cpu")


def run_train(config: dict[str, Any], *, pair: skd.Pair | None = None, **keys: Any) -> TrainResult:
    """A whole run on the rows above, without display."""
    pair = pair or open_pair(config)
    return train(config, pair=pair, prompts=ROWS, validation=ROWS, display=False, **keys)


def open_run(config: dict[str, Any], prompts: Prompts = ROWS, pair: skd.Pair | None = None) -> Run:
    """The parts of a run, to take single steps with."""
    Path(config["output"]).mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision="no", cpu=True)
    return prepare(config_of(config), accelerator, pair=pair or open_pair(config), prompts=prompts)


def end_state(run_dir: str | Path, step: int) -> dict[str, str]:
    """SHA-256 of everything that must not depend on interruptions."""
    checkpoint = Path(run_dir) / "checkpoints" / f"step-{step}"
    state = {**json.loads((checkpoint / "state.json").read_text()), "config_digest": "holds the output directory"}
    files = [checkpoint / name for name in ("student.safetensors", "optimizer.safetensors")]
    files += [Path(run_dir) / name for name in ("trained.jsonl", "samples.jsonl", f"tokens/step-{step}.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} | {"state": str(state)}

"""What stands in for the recipes' models and data: a tiny random pair of every family, and rows of every task."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.config import RunConfig
from tests.data.families import GEMMA, QWEN2, QWEN3, Family
from tests.tiny import tiny_model

FAMILIES: dict[str, tuple[str, Family]] = {
    "gemma": ("gemma", GEMMA),
    "gemma3": ("gemma3", GEMMA),
    "qwen2": ("qwen2", QWEN2),
    "qwen3": ("qwen3", QWEN3),
    "smollm2": ("llama", QWEN2),  # ChatML, as there
}
"""Folder of the recipes -> architecture, and tokenizer with template."""
ROWS = {
    "gsm8k": {"question": "What is 2 + 3?", "answer": "2 + 3 = 5\n#### 5"},
    "dialogsum": {"dialogue": "Ann: Lunch?\nBen: Yes.", "summary": "They have lunch."},
    "translation": {"source": "Haus", "target": "house"},
    "math": {"problem": "Find 2 + 3.", "solution": "It is \\boxed{5}."},
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """models(family): a directory with the tiny models ``teacher`` and ``student``, made once."""
    directory = tmp_path_factory.mktemp("families")

    def made(family: str) -> Path:
        architecture, words = FAMILIES[family]
        tokenizer = words.tokenizer()
        for seed, role in enumerate(("teacher", "student")):
            place = directory / family / role
            if not place.exists():
                size = max(tokenizer.get_vocab().values()) + 1
                model = tiny_model(architecture, seed=seed, vocab_size=size, hidden=16, layers=1, max_positions=4096)
                model.generation_config.eos_token_id = words.eos_id
                model.config.eos_token_id = words.eos_id
                model.save_pretrained(place)
                tokenizer.save_pretrained(place)
        return directory / family

    return made


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file of 4 rows for every task."""
    directory = tmp_path_factory.mktemp("rows")
    for task, row in ROWS.items():
        different = [{key: f"{text} {n}" for key, text in row.items()} for n in range(4)]
        (directory / f"{task}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in different))
    return directory


def small(config: RunConfig, models: Path, rows: Path, output: Path) -> RunConfig:
    """The recipe for two steps, with the stand-ins for its models and its rows: nothing else is changed."""
    task = config.data.train[0].task
    source = {"path": str(rows / f"{task}.jsonl"), "task": task}
    values = config.model_dump(mode="json")
    for role in ("teacher", "student"):
        if values[role] is not None:
            values[role] |= {"path": str(models / role), "revision": None}
    values["data"] |= {"train": source, "validation": source}
    values["sampling"] |= {"max_new_tokens": 4}
    values["train"] |= {"max_steps": 2, "batch_size": 2, "trackers": []}
    return RunConfig.model_validate(values | {"output": str(output)})

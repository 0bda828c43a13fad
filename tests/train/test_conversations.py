"""From a file of conversations to a step: the loss is over the turns that are learned from, and over nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from skd.config import config_of
from skd.train import train
from skd.train.run import Run
from skd.train.setup import prepare
from skd.train.step import train_step
from tests.tiny import save_tiny, tiny_tokenizer

USER, ASSISTANT, END = 2, 3, 1
"""Ids of t2, t3 and </s>, which frame the turns."""
TEMPLATE = (
    "{% for m in messages %}{{ 't2 ' if m['role'] == 'user' else 't3 ' }}{{ m['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 't3 ' }}{% endif %}"
)
CHATS = [["t10 t11", "t12"], ["t13", "t14 t15", "t16 t17", "t18"], ["t19", "t20", "t21", "t22 t23", "t24", "t25"]]
"""User and assistant in turn."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("chats")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    for seed, role in enumerate(("teacher", "student")):
        save_tiny(directory / role, "llama", seed=seed)
        tokenizer.save_pretrained(directory / role)
    turns = [[{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(chat)] for chat in CHATS]
    (directory / "chats.jsonl").write_text("\n".join(json.dumps({"messages": messages}) for messages in turns))
    return directory


def config_in(places: Path, output: Path, train_on: str, **keys: Any) -> dict[str, Any]:
    return {
        "teacher": str(places / "teacher"),
        "student": str(places / "student"),
        "data": {"train": str(places / "chats.jsonl"), "train_on": train_on},
        "sampling": {"max_new_tokens": 4},
        "train": {"max_steps": 2, "batch_size": 3, "lr": 1e-3, "trackers": [], "validate_every": None},
        "output": str(output),
        **keys,
    }


def open_run(config: dict[str, Any]) -> Run:
    Path(config["output"]).mkdir(parents=True, exist_ok=True)
    return prepare(config_of(config), Accelerator(mixed_precision="no", cpu=True))


def expected_loss(run: Run, train_on: str) -> float:
    """The mean negative log-likelihood of the assistants' words and end tokens, from one plain forward per row."""
    losses = []
    for chat in CHATS:
        ids: list[int] = []
        counts: list[int] = []
        for i, text in enumerate(chat):
            words = [int(word[1:]) for word in text.split()]
            ids += [(USER, ASSISTANT)[i % 2], *words, END]
            if i == len(chat) - 1 or (train_on == "all" and i % 2):
                counts += range(len(ids) - len(words) - 1, len(ids))
        with torch.no_grad():
            logp_TV = torch.log_softmax(run.pair.student(torch.tensor([ids])).logits[0].double(), -1)
        losses += [-float(logp_TV[place - 1, ids[place]]) for place in counts]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("train_on", ["last", "all"])
def test_the_loss_is_over_the_trained_turns(places: Path, tmp_path: Path, train_on: str) -> None:
    run = open_run(config_in(places, tmp_path / "run", train_on, method="sft"))
    expected = expected_loss(run, train_on)
    assert train_step(run, 0).metrics["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("method", "train_on"), [("supervised_kd", "all"), ("skd", "last"), ("on_policy", "last")])
def test_methods_train_on_conversations(places: Path, tmp_path: Path, method: str, train_on: str) -> None:
    train(config_in(places, tmp_path / "run", train_on, method=method), display=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(math.isfinite(line["loss"]) for line in lines if line.get("loss") is not None) == 2
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()

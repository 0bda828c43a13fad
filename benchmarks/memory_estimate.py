"""The memory estimate of ``skd check`` against the measured peak of the run, each run in a process of its own.

    OMP_NUM_THREADS=1 python -m benchmarks.memory_estimate

Measured is the highest resident memory of a whole run (loading, two steps, a save, the export) minus what was resident
before it. Each run is a fork of a parent that has imported everything and has trained a tiny pair, since libraries load
parts of themselves at their first use. Linux only: it reads /proc/self/status.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.pairs import save_random_llama
from skd.check import check
from skd.check.memory import Estimate, estimate
from skd.check.models import roles
from skd.check.pair import check_pair
from skd.config import RunConfig, config_of
from skd.train.loop import train

PAIRS: dict[str, dict[str, Any]] = {
    "64": {"teacher": {"hidden": 512, "layers": 8}, "student": {"hidden": 256, "layers": 8}},
    "49152": {"teacher": {"hidden": 256, "layers": 4}, "student": {"hidden": 128, "layers": 4}},
}
"""Vocabulary -> shapes."""
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sft", {}),
    ("supervised_kd", {}),
    ("on_policy", {}),
    ("skd", {}),
    ("skd", {"policy.block": 32}),
    ("supervised_kd", {"train.gradient_checkpointing": True}),
    ("supervised_kd", {"train.precision": "bf16"}),
    ("supervised_kd", {"train.micro_batch_tokens": 512}),
)
"""Method and changes to the config."""
TOKENS = 64
"""Of each prompt, and of each response."""
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimated and measured peak memory of short runs.")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as room:
        _warm_up(room)
        print(f"{'ids':>6} {'method':<14} {'change':<35} {'estimate MB':>11} {'measured MB':>11} {'ratio':>6}")
        for vocabulary in options.pairs:
            directory = Path(room) / vocabulary
            _make_pair(directory, int(vocabulary), PAIRS[vocabulary])
            for method, changes in CASES:
                expected, measured = _forked(config_of(_settings(directory, method), changes))
                change = ", ".join(f"{key}={value}" for key, value in changes.items())
                sizes = f"{expected.peak / 1e6:11.0f} {measured / 1e6:11.0f} {expected.peak / measured:6.2f}"
                print(f"{vocabulary:>6} {method:<14} {change:<35} {sizes}  {expected.text()}", flush=True)


def _warm_up(room: str) -> None:
    source = {"kind": "task", "name": "number_words", "split": "train", "size": 8}
    config = {
        **{role: f"builtin:number_words/{role}" for role in ("teacher", "student")},
        "data": {"train": source},
        "sampling": {"max_new_tokens": 4},
        "train": {"max_steps": 1, "tensorboard": False},
        "output": f"{room}/warm",
    }
    train(config, display=False)


def _make_pair(directory: Path, vocabulary: int, shapes: dict[str, Any]) -> None:
    """Random models, and rows of equal length."""
    for seed, (role, shape) in enumerate(shapes.items()):
        save_random_llama(directory / role, **shape, vocab_size=vocabulary, seed=seed)
    lines = []
    for row in range(BATCH):
        words = [f"w{3 + (row * 7 + i * 3) % (vocabulary - 3)}" for i in range(2 * TOKENS - 1)]
        lines.append(json.dumps({"prompt": " ".join(words[:TOKENS]), "response": " ".join(words[TOKENS:])}))
    (directory / "rows.jsonl").write_text("\n".join(lines))


def _settings(directory: Path, method: str) -> dict[str, Any]:
    """A run of two steps: the optimiser has its state from the first one on."""
    return {
        "method": method,
        "teacher": None if method == "sft" else str(directory / "teacher"),
        "student": str(directory / "student"),
        "data": {"train": str(directory / "rows.jsonl")},
        "sampling": {"max_new_tokens": TOKENS},
        "train": {"batch_size": BATCH, "max_steps": 2, "tensorboard": False},
        "output": tempfile.mkdtemp(dir=directory),
    }


def _forked(config: RunConfig) -> tuple[Estimate, int]:
    """The estimate, and the measured rise in bytes."""
    built = check_pair(roles(config.student, config.teacher), lambda part: None).built
    found = check(config)
    found.require()
    expected = estimate(config, built["student"], built.get("teacher"), found.train)  # type: ignore[arg-type]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before = _kib("VmRSS")
            train(config, checked=found, display=False)
            os.write(writing, f"{1024 * (_kib('VmHWM') - before)}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        measured = int(pipe.read())
    os.waitpid(child, 0)
    return expected, measured


def _kib(name: str) -> int:
    """A size of this process, as the system tells it."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0])


if __name__ == "__main__":
    main()

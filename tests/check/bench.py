"""A run that is right in every part, and ways to damage it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny import save_tiny

CONFIG = """method: skd
teacher: teacher
student: student
data: {train: train.jsonl, validation: validation.jsonl, max_prompt_tokens: 16}
sampling: {max_new_tokens: 8}
train: {batch_size: 4, max_steps: 2}
output: runs/x
"""


def save_models(directory: Path) -> Path:
    """A teacher and a student whose files a bench may copy and damage."""
    save_tiny(directory / "teacher", "llama", seed=1, hidden=32, max_positions=64)
    save_tiny(directory / "student", "llama", seed=2, hidden=16, max_positions=64)
    return directory


@dataclass(frozen=True)
class Bench:
    """A directory with ``run.yaml``, ``train.jsonl``, ``validation.jsonl``, ``student`` and ``teacher``."""

    root: Path

    @property
    def student(self) -> Path:
        return self.root / "student"

    @property
    def teacher(self) -> Path:
        return self.root / "teacher"

    def rows(self, *lines: Any, name: str = "train.jsonl") -> None:
        """Write rows: text and bytes as they are, other values as JSON."""
        encoded = [line if isinstance(line, bytes) else _text(line).encode("utf-8", "surrogatepass") for line in lines]
        (self.root / name).write_bytes(b"".join(line + b"\n" for line in encoded))

    def json(self, path: str, change: Callable[[dict[str, Any]], object] | None = None, **values: Any) -> None:
        """Change a JSON file of the bench; the value ``...`` removes its key."""
        file = self.root / path
        content = json.loads(file.read_text())
        content |= {key: value for key, value in values.items() if value is not ...}
        for key in [key for key, value in values.items() if value is ...]:
            content.pop(key, None)
        if change is not None:
            change(content)
        file.write_text(json.dumps(content))

    def header(self, change: Callable[[dict[str, Any]], object], path: str = "student/model.safetensors") -> None:
        """Rewrite the header of a weights file, its payload kept."""
        file = self.root / path
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        replaced = change(header)
        text = json.dumps(header if replaced is None else replaced).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    def shards(self) -> None:
        """The student's weights as two files with an index."""
        from safetensors.torch import load_file, save_file

        tensors = load_file(self.student / "model.safetensors")
        (self.student / "model.safetensors").unlink()
        names = sorted(tensors)
        parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
        for file, inside in parts.items():
            save_file({name: tensors[name] for name in inside}, self.student / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {name: file for file, inside in parts.items() for name in inside}}
        (self.student / "model.safetensors.index.json").write_text(json.dumps(index))

    def template(self, template: str) -> None:
        """Give both tokenizers this chat template."""
        for directory in (self.student, self.teacher):
            (directory / "chat_template.jinja").write_text(template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def row(prompt: Any = "t2 t3", response: Any = "t4 t5") -> dict[str, Any]:
    return {"prompt": prompt, "response": response}


GOOD_ROWS = [row(f"t{2 + i} t3", f"t{4 + i} t5") for i in range(8)]
OTHER_ROWS = [row(f"t{20 + i} t3") for i in range(3)]


def build(models: Path, root: Path) -> Bench:
    """A bench in ``root`` with copies of ``models``."""
    for name in ("student", "teacher"):
        shutil.copytree(models / name, root / name)
    bench = Bench(root)
    (root / "run.yaml").write_text(CONFIG)
    bench.rows(*GOOD_ROWS)
    bench.rows(*OTHER_ROWS, name="validation.jsonl")
    return bench


@dataclass(frozen=True)
class Fault:
    """One fault and what must be said of it: ``error[code] place: found; remedy``, the parts of it as substrings."""

    damage: Callable[[Bench], object]
    exit: int
    code: str
    place: str
    found: str
    remedy: str
    overrides: Sequence[str] = ()
    others: int = 0
    """Further problems that follow from the same fault."""

"""A small plan that can be changed key by key, and written to a file."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

PLAN: dict[str, Any] = {
    "reference": "sft",
    "seeds": [0, 1],
    "base": {
        "teacher": "builtin:number_words/teacher",
        "student": "builtin:number_words/student",
        "data": {
            "train": {"kind": "task", "name": "number_words", "split": "train", "size": 8},
            "validation": {"kind": "task", "name": "number_words", "split": "validation", "size": 4},
        },
        "policy": {"kind": "interleaved", "gate": {"kind": "top_k", "k": 3}},
        "sampling": {"max_new_tokens": 20},
        "train": {
            "lr": 1e-3,
            "batch_size": 4,
            "max_steps": 2,
            "validate_every": 1,
            "trackers": [],
            "samples_every": None,
        },
    },
    "methods": {"sft": {"method": "sft"}, "skd": {"policy": {"gate": {"k": 5}}}},
    "evaluation": {"task": "number_words", "size": 12, "seed": 5},
    "curve": {"task": "number_words", "split": "validation", "size": 4, "seed": 5},
}


def write_plan(directory: Path, **changes: Any) -> Path:
    """The plan with top-level keys replaced, as YAML (JSON is YAML); its output lies beside it."""
    plan = {"output": str(directory / "out"), **deepcopy(PLAN), **changes}
    path = directory / "plan.yaml"
    path.write_text(json.dumps(plan, indent=1))
    return path

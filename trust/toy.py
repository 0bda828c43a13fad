"""The run that every trial harms: a tiny pair, sixty steps, a save every third."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny import FIRST_WORD_ID, save_tiny

__all__ = ["MODES", "STEPS", "UNREACHED", "Toy"]

STEPS = 60
SAVE_EVERY = 3
VOCABULARY = 257
ROWS = 50

# Two random models agree on little: this many of the teacher's tokens make about as many drafts kept as not.
_INTERLEAVED = {"kind": "interleaved", "gate": {"kind": "top_k", "k": 128}, "block": 3}

MODES: Mapping[str, Mapping[str, Any]] = {
    "data_set": {"method": "supervised_kd"},
    "on_policy": {"method": "on_policy"},
    "skd": {"method": "skd", "policy": _INTERLEAVED},
    "mixed": {
        "method": "skd",
        "policy": {
            "kind": "mixture",
            "parts": [{"policy": {"kind": "data_set"}, "weight": 1.0}, {"policy": _INTERLEAVED, "weight": 1.0}],
        },
    },
}
"""Who writes the responses, as changes to the toy's config."""

UNREACHED = {("data_set", "round")}
"""(mode, fault point) that do not go together: responses of the data set are not sampled, so they have no rounds."""


@dataclass(frozen=True)
class Toy:
    """A directory with the models and the rows that all trials share."""

    directory: Path

    @staticmethod
    def make(directory: Path) -> Toy:
        """Write a teacher of width 64, a student of width 32, it without dropout ("steady"), and 50 rows."""
        save_tiny(directory / "teacher", "llama", seed=1, vocab_size=VOCABULARY, hidden=64)
        save_tiny(directory / "student", "llama", seed=2, vocab_size=VOCABULARY, hidden=32, attention_dropout=0.1)
        save_tiny(directory / "steady", "llama", seed=2, vocab_size=VOCABULARY, hidden=32)
        lines = [
            json.dumps({"prompt": _words(row, 1 + row % 4), "response": _words(row + 7, row % 6)})
            for row in range(ROWS)
        ]
        (directory / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return Toy(directory)

    def config(self, mode: str, **train: Any) -> dict[str, Any]:
        """A whole config; keywords go to its ``train`` section.

        The output is relative: trials that run in directories of their own then write the same bytes.
        """
        source = {"path": str(self.directory / "rows.jsonl")}
        keys = {"max_steps": STEPS, "batch_size": 4, "lr": 0.01, "seed": 3, "save_every": SAVE_EVERY}
        sampling = {"max_new_tokens": 8, "slots": 4, "student": {"temperature": 1.0, "top_p": 1.0}}
        shown = {"samples_every": 5, "validate_every": 20, "validation_prompts": 4, "trackers": []}
        return {
            "teacher": str(self.directory / "teacher"),
            "student": str(self.directory / "student"),
            "data": {"train": source, "validation": source, "chat": "never"},
            # Refused where nothing is sampled.
            **({} if mode == "data_set" else {"sampling": sampling}),
            "train": {**keys, **shown, **train},
            "output": "run",
            **MODES[mode],
        }


def _words(seed: int, count: int) -> str:
    numbers = (FIRST_WORD_ID + (31 * seed + 17 * i) % (VOCABULARY - FIRST_WORD_ID) for i in range(count + 1))
    return " ".join(f"t{number}" for number in numbers)

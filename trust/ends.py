"""The end of a run as hashes: everything that must not depend on what happened on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trust.toy import STEPS

__all__ = ["differences", "end_of"]

_CLOCKED = ("seconds", "tokens_per_second", "peak_mb")
"""Names in a row of metrics.jsonl that begin like this hold times, or the memory of a process."""


def end_of(run_dir: Path, steps: int = STEPS) -> dict[str, str]:
    """SHA-256 by name: the last checkpoint file by file, the exported student, the logs, the schedule."""
    files = [*(run_dir / "checkpoints" / f"step-{steps}").glob("*"), *(run_dir / "student").glob("*")]
    files += [
        *(run_dir / "tokens").glob("*"),
        *(run_dir / name for name in ("trained.jsonl", "samples.jsonl", "best.json")),
    ]
    hashes = {str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashes | {"metrics.jsonl without times": hashlib.sha256(_timeless(run_dir / "metrics.jsonl")).hexdigest()}


def _timeless(metrics: Path) -> bytes:
    """Every row with loss, learning rate and counts; times are left out."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    kept: list[dict[str, Any]] = [
        {key: value for key, value in row.items() if not key.startswith(_CLOCKED)} for row in rows
    ]
    return json.dumps(kept).encode()


def differences(run_dir: Path, expected: Mapping[str, str], steps: int = STEPS) -> list[str]:
    """The names whose hashes are not the expected ones; those of a run that is not complete as well."""
    try:
        found = end_of(run_dir, steps)
    except (OSError, ValueError) as error:
        return [f"the end cannot be read: {error}"]
    different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return [f"{run_dir}: {', '.join(different)} differ from the uninterrupted run"] if different else []

"""``provenance.json`` of a run directory: what the run is made from, and by which code it was started each time."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from skd.files import write_atomic
from skd.train.checkpoint import TrainState
from skd.versions import commit

__all__ = ["PROVENANCE_FILE", "record_start"]

PROVENANCE_FILE = "provenance.json"


def record_start(run_dir: Path, state: TrainState) -> None:
    """Add a start, or a resume, of the run that is at ``state``; what cannot be read of earlier ones is left out."""
    path = run_dir / PROVENANCE_FILE
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    start = {"step": state.step, "time": now, "commit": commit(), "versions": state.versions}
    record = {
        "config_digest": state.config_digest,
        "data_fingerprint": state.data_fingerprint,
        "models": state.provenance,
        "starts": [*_starts(path), start],
    }
    write_atomic(path, json.dumps(record, indent=2) + "\n")


def _starts(path: Path) -> list[Any]:
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return starts if isinstance(starts, list) else []

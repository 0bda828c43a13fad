"""What a run rests on, in few words: commit, date, data, models, versions, from its ``provenance.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skd.text import shortened

__all__ = ["origin"]

_MAX_BYTES = 1 << 20
_DIGEST = 12
"""Characters of a digest or commit: enough to recognise one; the whole record is further down on the page."""


def origin(path: Path) -> list[tuple[str, str]]:
    """Names and texts; empty where there is no such file, or another one."""
    try:
        record = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(record, Mapping):
        return []
    starts = record.get("starts")
    last = starts[-1] if isinstance(starts, list) and starts else {}
    facts = [
        ("started", _text(last, "time").replace("T", " ").replace("+00:00", " UTC")),
        ("commit", _text(last, "commit")[:_DIGEST]),
        ("config", _text(record, "config_digest")[:_DIGEST]),
        ("data", _text(record, "data_fingerprint")[:_DIGEST]),
        *((role, _model(record, role)) for role in ("teacher", "student")),
        *((name, _text(last, "versions", name)) for name in ("skd", "torch", "transformers")),
    ]
    resumes = len(starts) - 1 if isinstance(starts, list) else 0
    return [(name, text) for name, text in facts if text] + [("resumed", f"{resumes} times")] * (resumes > 0)


def _model(record: Mapping[str, Any], role: str) -> str:
    return (_text(record, "models", role, "digest") or _text(record, "models", role, "revision"))[:_DIGEST]


def _text(value: Any, *path: str) -> str:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return shortened(value, 60) if isinstance(value, str) else ""

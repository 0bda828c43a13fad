"""The manifest of a checkpoint: which files it has, their sizes and hashes, and the hash of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from skd.files import FileRecord, canonical

__all__ = ["FORMAT", "manifest_bytes", "read_manifest"]

FORMAT = 1
KIND = "skd-checkpoint"
STUDENT_FILE = "student.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
CONFIG_FILE = "config.yaml"
MANIFEST_FILE = "manifest.json"
FILES = frozenset({STUDENT_FILE, OPTIMIZER_FILE, STATE_FILE, CONFIG_FILE})


def manifest_bytes(records: Mapping[str, FileRecord]) -> bytes:
    """The text of the manifest: canonical JSON, with the SHA-256 of the same JSON without that field."""
    body = {"kind": KIND, "format": FORMAT, "files": {name: asdict(record) for name, record in records.items()}}
    return canonical({**body, "sha256": hashlib.sha256(canonical(body)).hexdigest()})


def read_manifest(text: bytes) -> dict[str, FileRecord]:
    """The records of a manifest. Raises ValueError unless it is, byte for byte, a manifest that ``save`` wrote."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(body, dict) or body.get("kind") != KIND:
        raise ValueError("is not the manifest of a checkpoint")
    if body.get("format") != FORMAT:
        raise ValueError(f"has format {body.get('format')!r}; this version reads {FORMAT}")
    try:
        records = {name: FileRecord(int(entry["bytes"]), str(entry["sha256"])) for name, entry in body["files"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError("does not list its files") from None
    if set(records) != FILES or text != manifest_bytes(records):
        raise ValueError("does not have the SHA-256 it records")
    return records

"""What the directory of a run holds: whole, still running or killed. Only reads; what is missing is named."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skd.config.document import read_document, read_text
from skd.errors import CheckpointError, ConfigError, Problem
from skd.report.metrics import Metrics, read_metrics
from skd.report.origin import origin
from skd.report.scores import ScoreRow, read_scores
from skd.report.timeline import stops
from skd.report.tokens import Budget, Snapshot, snapshot, tally
from skd.text import shortened

__all__ = ["Document", "RunRecord", "count_snapshots", "read_run", "read_snapshots", "require_run"]

_CONFIGS = ("config.yaml", "config.yml", "config.json")
_RECORDS = ("provenance.json", "results.json", "state.json", "manifest.json")
_PARTS = ("metrics.jsonl", "samples.jsonl", "tokens", "checkpoints", *_CONFIGS, *_RECORDS)
_MAX_TEXT = 20_000
_MAX_SAMPLES = 50
_MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Document:
    """A text file of the run, shown as it is."""

    name: str
    text: str


@dataclass(frozen=True)
class RunRecord:
    """One run, as far as it can be read."""

    directory: Path
    name: str
    """Unlike those of the other runs on the page."""
    style: int
    """Number of its colour there."""
    metrics: Metrics
    settings: Mapping[str, Any]
    """The run's config as plain values; empty when it cannot be read."""
    documents: list[Document]
    scores: list[ScoreRow]
    samples: list[list[tuple[str, str]]]
    """The last ones, each as (field, text)."""
    num_samples: int
    provenance: list[tuple[str, str]]
    """What the run rests on, in few words; empty where it is not recorded."""
    missing: list[str]

    def setting(self, *path: str) -> str:
        """A value of the config as text; empty when there is none."""
        value: Any = self.settings
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return "" if value is None or isinstance(value, Mapping | list) else shortened(str(value), 120)


def require_run(directory: Path) -> None:
    """Raises CheckpointError (SKD-H07) when ``directory`` is none, or holds nothing of a run."""
    remedy = "name the output directory of a run"
    if not directory.is_dir():
        raise CheckpointError(Problem("SKD-H07", str(directory), "there is no such directory", remedy))
    if not any((directory / name).exists() for name in _PARTS):
        found = "holds nothing of a run: neither metrics.jsonl nor config.yaml nor checkpoints"
        raise CheckpointError(Problem("SKD-H07", str(directory), found, remedy))


def read_run(directory: Path, name: str, style: int) -> RunRecord:
    """Everything but the token views."""
    missing: list[str] = []
    metrics = read_metrics(directory / "metrics.jsonl")
    missing += metrics.problems
    documents = _documents(directory, missing)
    scores = read_scores(directory, missing)
    samples, num_samples = _samples(directory / "samples.jsonl", missing)
    settings = _settings(directory / "config.yaml")
    provenance = origin(directory / "provenance.json")
    return RunRecord(
        directory, name, style, metrics, settings, documents, scores, samples, num_samples, provenance, missing
    )


def count_snapshots(directory: Path) -> int:
    """How many steps have a token view."""
    return len(_token_files(directory))


def read_snapshots(run: RunRecord, budget: Budget, num_stops: int, num_prompts: int) -> list[Snapshot]:
    """Views of at most ``num_stops`` steps of a run, first to last; files that cannot be shown are named."""
    paths = _token_files(run.directory)
    if not paths:
        run.missing.append("token view: there is no tokens/step-N.json (written at every validation)")
    shown: list[Snapshot] = []
    for index in stops(len(paths), num_stops):
        try:
            shown.append(snapshot(json.loads(_read(paths[index])), budget, num_prompts))
        except (OSError, ValueError, RecursionError) as error:
            run.missing.append(f"token view: {paths[index].name} cannot be shown: {shortened(str(error), 200)}")
    return shown


def _token_files(directory: Path) -> list[Path]:
    return _numbered(directory / "tokens", r"step-(\d{1,12})\.json")


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        data = read_document(path.name, read_text(path)).data if path.is_file() else None
    except ConfigError:
        return {}
    return data if isinstance(data, Mapping) else {}


def _documents(directory: Path, missing: list[str]) -> list[Document]:
    """Configuration and provenance: the run's own, else those of its newest checkpoint."""
    places = [directory, *_numbered(directory / "checkpoints", r"step-(\d{1,12})")[::-1][:1]]
    found: list[Document] = []
    for name in _CONFIGS + _RECORDS:
        path = next((place / name for place in places if (place / name).is_file()), None)
        document = _document(path, missing) if path else None
        found += [document] if document else []
    if not any(document.name in _CONFIGS for document in found):
        missing.append("configuration: there is no config.yaml")
    return found


def _document(path: Path, missing: list[str]) -> Document | None:
    try:
        return Document(path.name, shortened(_read(path), _MAX_TEXT))
    except (OSError, ValueError) as error:
        missing.append(f"{path.name}: {shortened(str(error), 200)}")
        return None


def _samples(path: Path, missing: list[str]) -> tuple[list[list[tuple[str, str]]], int]:
    """The last samples that were written, and how many there are in all."""
    if not path.is_file():
        return [], 0
    last: deque[bytes] = deque(maxlen=_MAX_SAMPLES)
    count = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    last.append(line)
                    count += 1
    except OSError as error:
        missing.append(f"samples: {shortened(str(error), 200)}")
    return [_sample(line.decode("utf-8", errors="backslashreplace")) for line in last], count


def _sample(line: str) -> list[tuple[str, str]]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return [("unreadable line", shortened(line, 200))]
    return [(shortened(key, 60), shortened(_text(key, value), 1_000)) for key, value in list(record.items())[:12]]


def _text(key: str, value: Any) -> str:
    if key == "authors" and isinstance(value, list):
        with suppress(ValueError):
            return " \u00b7 ".join(f"{count} {author}" for author, count in tally(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbered(directory: Path, pattern: str) -> list[Path]:
    """Entries whose whole name matches ``pattern``, by the number in it."""
    entries = directory.iterdir() if directory.is_dir() else ()
    matches = ((re.fullmatch(pattern, path.name), path) for path in entries)
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]


def _read(path: Path) -> str:
    """Text of a file of bounded size; bytes that are not UTF-8 become escapes."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"larger than {_MAX_FILE_BYTES >> 20} MiB")
    return path.read_bytes().decode("utf-8", errors="backslashreplace")

"""The page of one training run, made from what its directory holds: whole, still running or killed."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skd.errors import CheckpointError, Problem
from skd.report.figures import Figure, figure
from skd.report.metrics import Metrics, read_metrics
from skd.report.page import points, render_page
from skd.report.tokens import Budget, TokenView, token_view
from skd.text import shortened, write_text

__all__ = ["write_run"]

_CONFIGS = ("config.yaml", "config.yml", "config.json")
_RECORDS = ("provenance.json", "results.json", "manifest.json")
_PARTS = ("metrics.jsonl", "samples.jsonl", "tokens", "checkpoints", *_CONFIGS, *_RECORDS)
_MAX_TEXT = 20_000
_MAX_SAMPLES = 50
_MAX_FILE_BYTES = 64 << 20
_VIEWS = 3
_CHARTS = (
    ("Loss", re.compile("loss"), False),
    ("Drafted tokens kept (acceptance rate)", re.compile("accept"), True),
    ("Tokens written by the teacher (replaced share)", re.compile("replace.*(share|rate)"), True),
    ("Tokens per second", re.compile("tokens?_?(per|/)_?s"), False),
    ("Learning rate", re.compile(r"(^|[/._])(lr|learning_rate)$"), False),
    ("Gradient norm", re.compile("grad.*norm|norm.*grad"), False),
    ("Seconds", re.compile("(^|/)seconds"), False),
)
_MAX_CHARTS = 12


@dataclass(frozen=True)
class Document:
    """A text file of the run, shown as it is."""

    name: str
    text: str


def write_run(run_dir: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a run, by default to ``run_dir/report.html``, and return where it is.

    Parts that are missing or unreadable are named on the page. Raises CheckpointError when ``run_dir`` is no
    directory or holds nothing of a run, ResourceError when the page cannot be written.
    """
    directory = Path(run_dir)
    if not directory.is_dir():
        found = "there is no such directory"
        raise CheckpointError(Problem("SKD-H07", str(directory), found, "name the output directory of a run"))
    if not any((directory / name).exists() for name in _PARTS):
        found = "holds nothing of a run: neither metrics.jsonl nor config.yaml nor checkpoints"
        raise CheckpointError(Problem("SKD-H07", str(directory), found, "name the output directory of a run"))
    return write_text(Path(path) if path else directory / "report.html", render_run(directory))


def render_run(directory: Path) -> str:
    """The page as HTML text."""
    missing: list[str] = []
    metrics = read_metrics(directory / "metrics.jsonl")
    missing += metrics.problems
    views = _token_views(directory / "tokens", missing)
    documents = _documents(directory, missing)
    samples, num_samples = _samples(directory / "samples.jsonl", missing)
    return render_page(
        "run.html",
        name=directory.resolve().name,
        metrics=metrics,
        tiles=_tiles(metrics),
        figures=_figures(metrics),
        views=views,
        documents=documents,
        samples=samples,
        num_samples=num_samples,
        missing=missing,
    )


def _tiles(metrics: Metrics) -> list[tuple[str, str]]:
    """The newest value of the first series of each headline chart."""
    tiles = []
    for title, pattern, percent in _CHARTS[:4]:
        key = next((key for key in metrics.series if pattern.search(key)), None)
        value = metrics.last(key) if key else None
        if value is not None:
            tiles.append((title, points(value) if percent else f"{value:,.4g}"))
    return tiles


def _figures(metrics: Metrics) -> list[Figure]:
    left = dict(metrics.series)
    drawn: list[Figure | None] = []
    for title, pattern, percent in _CHARTS:
        chosen = {key: left.pop(key) for key in list(left) if pattern.search(key)}
        drawn.append(_figure(len(drawn), title, chosen, percent))
    for key, values in list(left.items())[:_MAX_CHARTS]:
        drawn.append(_figure(len(drawn), key, {key: values}, key.endswith(("_rate", "_share"))))
    return [one for one in drawn if one is not None][:_MAX_CHARTS]


def _figure(number: int, title: str, series: Mapping[str, Any], percent: bool) -> Figure | None:
    styles = {key: index for index, key in enumerate(series)}
    return figure(f"chart{number}", shortened(title, 60), series, styles, percent=percent)


def _token_views(directory: Path, missing: list[str]) -> list[TokenView]:
    """The views of the last, the middle and the first step that were written, in that order."""
    paths = _numbered(directory, r"step-(\d{1,12})\.json")
    if not paths:
        missing.append("token view: there is no tokens/step-N.json (written at every validation)")
        return []
    picked = {round(i * (len(paths) - 1) / (_VIEWS - 1)) for i in range(_VIEWS)}
    budget = Budget()
    views: list[TokenView] = []
    for index in sorted(picked, reverse=True):
        try:
            views.append(token_view(json.loads(_read(paths[index])), budget))
        except (OSError, ValueError, RecursionError) as error:
            missing.append(f"token view: {paths[index].name} cannot be shown: {shortened(str(error), 200)}")
    return views


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
    """The last samples that were written, each as (field, text), and how many there are in all."""
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
    return [(shortened(key, 60), shortened(_text(value), 1_000)) for key, value in list(record.items())[:12]]


def _text(value: Any) -> str:
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

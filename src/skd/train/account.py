"""What a finished run says of its student on the model card: method, data, scores with intervals, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from skd.config import DataSource
from skd.models.card import model_card
from skd.train.checkpoint import TrainState
from skd.train.run import Run

__all__ = ["SCORES", "card_of"]

SCORES = "scores"
"""Folder of a run whose ``*.summary.json``, written by ``skd evaluate --out``, go into the card."""


def card_of(run: Run, state: TrainState) -> str:
    """The card of the run's student at its end."""
    how = {"method": run.config.method, "steps": state.step, "config": state.config_digest}
    data = {f"data {number}": text for number, text in enumerate(map(_named, run.config.data.train), 1)}
    rows = {"training rows": len(run.prompts), "fingerprint of the rows": state.data_fingerprint}
    measured = {"best validation loss": state.best_loss, "at step": state.best_step}
    return model_card(
        {**how, **data, **rows, **state.provenance, **state.versions}, {**measured, **dict(_scores(run.run_dir))}
    )


def _named(source: DataSource) -> str:
    """A source without the folders of this machine."""
    if source.kind == "hub":
        at = "" if source.revision is None else f" at {source.revision}"
        return f"{source.id}{at}, {source.split}"
    if source.kind == "task":
        return f"task {source.name}, {source.split}, seed {source.seed}"
    return PurePath(source.path).name


def _scores(run_dir: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every score; a file of another form is left out."""
    for file in sorted((run_dir / SCORES).glob("*.summary.json")):
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
            yield from [(f"{summary['task']}, {name}", _text(score)) for name, score in summary["scores"].items()]
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            continue


def _text(score: dict[str, Any]) -> str:
    low, high = score["interval_95"]
    return f"{score['value']:.4g} (95 % interval {low:.4g} to {high:.4g}, n {score['n']:,})"

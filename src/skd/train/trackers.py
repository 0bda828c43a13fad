"""Copies of a run's numbers for TensorBoard, wandb, trackio and MLflow, through accelerate's trackers.

metrics.jsonl is the truth: a tracker that is missing, offline or broken is said once and left out; the run goes on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skd.text import shortened
from skd.types import TEACHER

__all__ = ["TRACKERS", "Destination", "Trackers"]

COLUMNS = ["step", "prompt", "response", "with authors", "student tokens", "teacher tokens"]
"""Of the completions table. In ``with authors`` the teacher's tokens stand in double brackets."""
_PROJECT = "skd"


@dataclass(frozen=True)
class Destination:
    """A run, as a tracker sees it."""

    run_dir: Path
    settings: Mapping[str, Any]
    """The config as plain values."""
    after_step: int
    """Steps that are done; a tracker that can drops what it has of later ones."""


class Trackers:
    """The trackers of a run. Nothing here raises."""

    def __init__(self, names: Sequence[str], run: Destination, say: Callable[[str], None]) -> None:
        self._say = say
        self._open: dict[str, Any] = {}
        for name in names:
            self._try(name, self._start, name, run)

    def numbers(self, group: str, step: int, values: Mapping[str, Any]) -> None:
        """Scalars ``group/name`` of a step; what is no finite number is left out."""
        known = {f"{group}/{name}": value for name, value in values.items() if _is_number(value)}
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.log, known, step=step)

    def completions(self, step: int, view: Mapping[str, Any]) -> None:
        """The validation's responses with their authors, where the tracker has tables."""
        rows = list(_rows(step, view))
        for name, tracker in list(self._open.items()):
            if rows and name in _TABLES:
                self._try(name, _TABLES[name], tracker, step, rows)

    def close(self) -> None:
        """Let them write what they still hold."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.finish)
        self._open = {}

    def _start(self, name: str, run: Destination) -> None:
        tracker = TRACKERS[name](run)
        tracker.start()
        self._open[name] = tracker
        if name != "tensorboard":
            # There it would become one more event file and a dump of its own.
            tracker.store_init_configuration(dict(_flat(run.settings)))

    def _try(self, name: str, action: Callable[..., object], *arguments: Any, **keywords: Any) -> None:
        """A tracker may fail in any way; it is then left alone for the rest of the run."""
        try:
            action(*arguments, **keywords)
        except Exception as error:
            self._open.pop(name, None)
            reason = shortened(str(error).strip().split("\n")[0] or type(error).__name__, 300)
            self._say(
                f"warning[SKD-L04] tracker {name}: {reason}; it gets nothing more of this run, which goes on, "
                "and metrics.jsonl has everything"
            )


def _tensorboard(run: Destination) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker("tensorboard", str(run.run_dir), purge_step=max(run.after_step + 1, 0))


def _wandb(run: Destination) -> Any:
    from accelerate.tracking import WandBTracker

    # Without a key it would ask for one, or fail: offline runs can be sent later by `wandb sync`.
    online = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    mode = os.environ.get("WANDB_MODE", online)
    settings = {"console": "off", "silent": True}
    return WandBTracker(_PROJECT, name=run.run_dir.name, dir=str(run.run_dir), mode=mode, settings=settings)


def _trackio(run: Destination) -> Any:
    from accelerate.tracking import TrackioTracker

    return TrackioTracker(_PROJECT, name=run.run_dir.name, embed=False)


def _mlflow(run: Destination) -> Any:
    import mlflow
    from accelerate.tracking import MLflowTracker

    # Its own are 7 and 120 seconds: a server that is gone would hold the run for minutes before it is left out.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(given)
    else:
        # MLflow's own default lies in the working directory; a folder is all that mlflow-skinny can write.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((run.run_dir / "mlruns").resolve().as_uri())
        # It has set the variable, too, which the next run of this process would take for the user's.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return MLflowTracker(experiment_name=_PROJECT, run_name=run.run_dir.name)


TRACKERS: Mapping[str, Callable[[Destination], Any]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}
"""Name in the config -> a tracker that is not started yet."""

Rows = Sequence[Sequence[Any]]


def _wandb_table(tracker: Any, step: int, rows: Rows) -> None:
    tracker.log_table("completions", columns=COLUMNS, data=[list(row) for row in rows], step=step)


def _trackio_table(tracker: Any, step: int, rows: Rows) -> None:
    import pandas  # type: ignore[import-untyped]
    import trackio

    table = trackio.Table(dataframe=pandas.DataFrame(list(rows), columns=COLUMNS))
    tracker.log({"completions": table}, step=step)


def _mlflow_table(tracker: Any, step: int, rows: Rows) -> None:
    import mlflow

    columns = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
    mlflow.log_table(columns, "completions.json", run_id=tracker.tracker.info.run_id)


_TABLES: Mapping[str, Callable[[Any, int, Rows], None]] = {
    "wandb": _wandb_table,
    "trackio": _trackio_table,
    "mlflow": _mlflow_table,
}


def _rows(step: int, view: Mapping[str, Any]) -> Iterator[list[Any]]:
    for response in view["responses"]:
        pieces, authors = response["pieces"], response["authors"]
        marked = [f"[[{piece}]]" if author == TEACHER else piece for piece, author in zip(pieces, authors, strict=True)]
        by_teacher = authors.count(TEACHER)
        yield [step, response["prompt"], "".join(pieces), "".join(marked), len(authors) - by_teacher, by_teacher]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, int | float | str | None) else str(value)

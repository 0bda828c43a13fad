"""Which numbers of a run are drawn, in which order and under which names; one run in full, or several side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skd.report.figures import Figure, figure
from skd.report.metrics import Metrics
from skd.report.plots import Points
from skd.report.records import RunRecord
from skd.text import shortened

__all__ = ["of_one", "of_several", "others"]

Series = dict[str, Points]


@dataclass(frozen=True)
class _Chart:
    title: str
    series: Mapping[str, str]
    """Key in metrics.jsonl -> label."""
    percent: bool = False
    note: str = ""


_TRAINED = "on the responses just written"
_HELD_OUT = "on the validation prompts"
_CHARTS = (
    _Chart("Loss", {"loss": _TRAINED, "validation/loss": _HELD_OUT}, note="per token; comparable within one objective"),
    _Chart("Score while training", {"validation/score": "validation items"}, percent=True),
    _Chart("Drafted tokens kept", {"acceptance_rate": _TRAINED, "validation/acceptance_rate": _HELD_OUT}, percent=True),
    _Chart(
        "Tokens written by the teacher",
        {"replaced_share": _TRAINED, "validation/replaced_share": _HELD_OUT},
        percent=True,
    ),
    _Chart(
        "Divergence from the teacher",
        {"kl_student": "tokens kept from the student", "kl_teacher": "tokens the teacher wrote", "kl_data": "data"},
        note="forward KL, nats per token",
    ),
    _Chart(
        "Surprise of the student",
        {"nll_student": "tokens kept from the student", "nll_teacher": "tokens the teacher wrote", "nll_data": "data"},
        note="negative log-likelihood, nats per token",
    ),
    _Chart("Learning rate", {"lr": "learning rate"}),
    _Chart("Gradient norm", {"grad_norm": "before clipping"}),
    _Chart("Speed", {"tokens_per_second": "response tokens per second"}),
)
_SPLIT = {
    "seconds_draft": "student drafts",
    "seconds_judge": "teacher judges",
    "seconds_evidence": "teacher's evidence",
    "seconds_rest": "rest of the sampling",
    "seconds_forward": "loss",
    "seconds_backward": "gradient",
    "seconds_optimiser": "update",
}
_SPLIT_POINTS = 80
_DRAWN = {key for chart in _CHARTS for key in chart.series} | set(_SPLIT)
_MAX_OTHERS = 12
_TEACHERS = "by_teacher/"


def of_one(run: Metrics) -> list[Figure]:
    """All figures of a single run; a colour stands for a series."""
    drawn = [
        _figure(f"chart{number}", chart.title, _picked(run, chart.series), chart.percent, chart.note)
        for number, chart in enumerate(_CHARTS)
    ]
    drawn[4:4] = [
        _by_position("kept", "Drafted tokens kept, by position", _stages(run, "kept", "replaced")),
        _by_position("written", "Tokens written by the teacher, by position", _stages(run, "written", "tokens")),
    ]
    taught = _by_teacher(run)
    drawn.insert(3, _figure("teachers", "Drafted tokens kept, by teacher", taught, percent=True) if taught else None)
    drawn.append(_time_split(run))
    return [one for one in drawn if one is not None]


def of_several(runs: Sequence[RunRecord]) -> list[Figure]:
    """One figure for each number that any of the runs has; a colour stands for a run."""
    styles = {run.name: run.style for run in runs}
    drawn: list[Figure | None] = []
    for chart in _CHARTS:
        met = {key: label for key, label in chart.series.items() if any(key in run.metrics.series for run in runs)}
        for key, label in met.items():
            series: Series = {run.name: run.metrics.series.get(key, []) for run in runs}
            title = f"{chart.title}, {label}" if len(chart.series) > 1 else chart.title
            drawn.append(_figure(f"chart{len(drawn)}", title, series, chart.percent, chart.note, styles))
    kept = {run.name: _ratio(run.metrics, "kept", "replaced", 0.8, 1.0) for run in runs}
    drawn.append(_by_position("kept", "Drafted tokens kept, by position, last fifth of the steps", kept, styles))
    return [one for one in drawn if one is not None]


def others(run: Metrics) -> list[Figure]:
    """Numbers of ``metrics.jsonl`` that have no figure of their own, such as scores of a user's measure."""
    left = [key for key in run.series if key not in _DRAWN and not key.startswith(_TEACHERS)][:_MAX_OTHERS]
    drawn = [
        _figure(f"other{number}", key, {key: run.series[key]}, key.endswith(("_rate", "_share")))
        for number, key in enumerate(left)
    ]
    return [one for one in drawn if one is not None]


def _by_teacher(run: Metrics) -> Series:
    """The acceptance of each of several teachers, by name."""
    ending = "/acceptance_rate"
    keys = [key for key in run.series if key.startswith(_TEACHERS) and key.endswith(ending)]
    return {key.removeprefix(_TEACHERS).removesuffix(ending): run.series[key] for key in keys}


def _picked(run: Metrics, keys: Mapping[str, str]) -> Series:
    return {label: run.series[key] for key, label in keys.items() if key in run.series}


def _figure(
    name: str,
    title: str,
    series: Series,
    percent: bool = False,
    note: str = "",
    styles: Mapping[str, int] | None = None,
) -> Figure | None:
    numbers = styles or {label: index for index, label in enumerate(series)}
    return figure(name, shortened(title, 80), series, numbers, percent=percent, note=note)


def _by_position(name: str, title: str, series: Series, styles: Mapping[str, int] | None = None) -> Figure | None:
    numbers = styles or {label: index for index, label in enumerate(series)}
    return figure(name, title, series, numbers, percent=True, x_label="position in the response")


def _stages(run: Metrics, part: str, rest: str) -> Series:
    """A share by position at the start of the training, in the middle and at the end."""
    stages = {"first fifth of the steps": (0.0, 0.2), "middle fifth": (0.4, 0.6), "last fifth": (0.8, 1.0)}
    return {label: _ratio(run, part, rest, *bounds) for label, bounds in stages.items()}


def _ratio(run: Metrics, part: str, rest: str, low: float, high: float) -> Points:
    """part / (part + rest) by position over a stretch of the steps; of ``written`` over all ``tokens``."""
    steps = sorted(run.positions)
    chosen = [run.positions[step] for step in steps[int(low * len(steps)) : math.ceil(high * len(steps))]]
    sums: dict[int, list[int]] = {}
    for counts in chosen:
        for start, top, bottom in zip(counts["from"], counts[part], counts[rest], strict=True):
            pair = sums.setdefault(start, [0, 0])
            pair[0] += top
            pair[1] += bottom if rest == "tokens" else top + bottom
    return [(float(start), top / bottom) for start, (top, bottom) in sorted(sums.items()) if bottom]


def _time_split(run: Metrics) -> Figure | None:
    """Where a step's seconds go, stacked; averaged over stretches of the steps."""
    parts = {label: _averaged(run.series[key]) for key, label in _SPLIT.items() if key in run.series}
    if len({len(part) for part in parts.values()}) != 1:
        return None
    numbers = {label: index for index, label in enumerate(parts)}
    return figure(
        "split",
        "Where the seconds go",
        parts,
        numbers,
        note="seconds per step, stacked; prefill, data and idle time are apart",
        stacked=True,
    )


def _averaged(points: Points) -> Points:
    size = max(1, math.ceil(len(points) / _SPLIT_POINTS))
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [(stretch[-1][0], sum(value or 0.0 for _, value in stretch) / len(stretch)) for stretch in stretches]

"""The rows: whether they can be read, and what repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from skd.check.report import Part
from skd.config import DataSource, RunConfig
from skd.data.rows import Row
from skd.data.sources import load_rows
from skd.errors import DataError, Problem

__all__ = ["check_rows"]

Rows = tuple[list[Row] | None, list[Row] | None]
"""Training and validation rows; None where there are none or they cannot be read."""


def check_rows(part: Part, config: RunConfig, *, fail_on_leak: bool = False) -> Rows:
    """Read both sources. Everything that ``load_rows`` raises is noted, fewer rows than a batch included (SKD-D12).

    Equal rows are counted (SKD-D06 needs no more: rows are keyed by number). A validation prompt that is also trained
    on is a warning, or an error with ``fail_on_leak`` (SKD-D07).
    """
    train = _loaded(part, "training", config.data.train, config.train.batch_size)
    validation = None
    if config.data.validation is not None:
        validation = _loaded(part, "validation", config.data.validation, 1)
    if train and validation:
        _check_leak(part, train, validation, fail_on_leak)
    return train, validation


def _loaded(part: Part, name: str, source: DataSource, at_least: int) -> list[Row] | None:
    with part.noting():
        rows = load_rows(source, at_least=at_least)
        part.facts.append(f"{len(rows):,} {name} rows{_repeated(rows)}")
        return rows
    return None


def _repeated(rows: Sequence[Row]) -> str:
    again = len(rows) - len(set(rows))
    prompts = len(rows) - len({row.prompt for row in rows})
    if not prompts:
        return ""
    return f" ({again:,} equal an earlier row, {prompts - again:,} repeat its prompt with another response)"


def _check_leak(part: Part, train: Sequence[Row], validation: Sequence[Row], fail: bool) -> None:
    trained = {row.prompt for row in train}
    counts = Counter(row.prompt in trained for row in validation)
    if not counts[True]:
        return
    first = next(number for number, row in enumerate(validation) if row.prompt in trained)
    found = f"{counts[True]:,} of {len(validation):,} validation prompts are also training prompts, first row {first}"
    problem = Problem("SKD-D07", "data.validation", found, "remove them from one of the two")
    if fail:
        part.errors.append(DataError(problem))
    else:
        part.warnings.append(problem)

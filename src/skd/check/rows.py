"""The rows: whether they can be read, and what repeats."""

from __future__ import annotations

from collections.abc import Sequence

from skd.check.report import Part
from skd.config import DataSource, RunConfig
from skd.data.rows import Row
from skd.data.sources import leak, load_rows
from skd.errors import DataError

__all__ = ["check_rows"]

Rows = tuple[list[Row] | None, list[Row] | None]
"""Training and validation rows; None where there are none or they cannot be read."""


def check_rows(part: Part, config: RunConfig, *, fail_on_leak: bool = False) -> Rows:
    """Read both sets. Everything that ``load_rows`` raises is noted, fewer rows than a batch included (SKD-D12).

    Equal rows are counted (SKD-D06 needs no more: rows are keyed by number). A validation row that is also a training
    row is a warning, or an error with ``fail_on_leak`` or ``data.on_leak: error`` (SKD-D07).
    """
    train = _loaded(part, "training", config, config.data.train, config.train.batch_size)
    validation = None
    if config.data.validation is not None:
        validation = _loaded(part, "validation", config, config.data.validation, 1)
    if train and validation and (problem := leak(train, validation)):
        if fail_on_leak or config.data.on_leak == "error":
            part.errors.append(DataError(problem))
        else:
            part.warnings.append(problem)
    return train, validation


def _loaded(part: Part, name: str, config: RunConfig, sources: Sequence[DataSource], at_least: int) -> list[Row] | None:
    with part.noting():
        rows = load_rows(sources, on_bad_row=config.data.on_bad_row, at_least=at_least)
        part.facts.append(f"{len(rows):,} {name} rows{_repeated(rows)}")
        return rows
    return None


def _repeated(rows: Sequence[Row]) -> str:
    again = len(rows) - len(set(rows))
    prompts = len(rows) - len({(row.context, row.prompt) for row in rows})
    if not prompts:
        return ""
    return f" ({again:,} equal an earlier row, {prompts - again:,} repeat its prompt with another response)"

"""What a maker yields, and how items become the three splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from skd.data.rows import Split, split_of
from skd.errors import DataError, Problem

__all__ = ["Item", "Sizes", "Source", "shuffled", "splits_of"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """Where items come from."""

    name: str
    """With its version, such as ``reasoning-gym 0.1.25, gsm_symbolic``."""
    licence: str
    url: str


@dataclass(frozen=True)
class Item:
    """One row to be, with where it comes from."""

    fields: Mapping[str, str]
    """The fields that the task reads; the first one tells rows apart."""
    group: str
    """Items of one group (a template, a sentence) stand in one split, so that a test shows nothing of the training."""
    source: Source
    detail: str = ""
    """The place within the source."""

    @property
    def key(self) -> str:
        """The text that no two rows share."""
        return " ".join(next(iter(self.fields.values())).split()).casefold()

    @property
    def characters(self) -> int:
        """Length of the texts together."""
        return sum(map(len, self.fields.values()))

    @property
    def row(self) -> dict[str, str]:
        """The row as it is written."""
        origin = f"{self.source.name}, {self.detail}" if self.detail else self.source.name
        return {**self.fields, "origin": origin, "licence": self.source.licence}


@dataclass(frozen=True)
class Sizes:
    """Rows wanted of each split."""

    train: int = 1000
    validation: int = 200
    test: int = 400

    def of(self, split: Split) -> int:
        """Rows wanted of ``split``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


def shuffled(items: Iterable[Item], seed: int) -> list[Item]:
    """All items in an order that depends on the seed and on their texts, not on the order in which they were found."""

    def rank(item: Item) -> bytes:
        return hashlib.blake2b(f"{seed}\n{item.key}\n{item.row}".encode(), digest_size=16).digest()

    return sorted(items, key=rank)


def splits_of(items: Iterable[Item], sizes: Sizes) -> dict[Split, Sequence[Item]]:
    """The first items of every split with distinct keys, until all are full or the items end.

    Raises DataError (SKD-D12) when a split that is wanted gets no row at all.
    """
    kept: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    seen = set[str]()
    for item in items:
        split = split_of(item.group)
        if item.key in seen or len(kept[split]) == sizes.of(split):
            continue
        seen.add(item.key)
        kept[split].append(item)
        if all(len(kept[split]) == sizes.of(split) for split in SPLITS):
            break
    empty = [split for split in SPLITS if sizes.of(split) and not kept[split]]
    if empty:
        found = f"the sources on this machine give no row for {', '.join(empty)}"
        raise DataError(Problem("SKD-D12", "data", found, "install more of the sources; docs/real-data.md lists them"))
    return dict(kept)

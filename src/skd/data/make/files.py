"""The files of a task: one per split, and the card that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from skd import __version__
from skd.data.make.items import Item
from skd.data.rows import Split
from skd.text import write_text

__all__ = ["write_task"]

CARD = """\
# {title}

{about}

Made by `python -m skd.data.make {task} --seed {seed}` of skd {version}. Every row names its origin and its licence.
Rows of one template, sentence or text stand in one split only. Not part of skd: before passing these files on, read
the licences.

| file | rows | SHA-256 |
|---|---|---|
{files}

| source | licence | rows | |
|---|---|---|---|
{sources}
"""


def write_task(
    folder: Path, task: str, seed: int, title: str, about: str, splits: Mapping[Split, Sequence[Item]]
) -> None:
    """Write ``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` and last ``README.md`` to ``folder``, each whole.

    Raises ResourceError when a file cannot be written.
    """
    lines = []
    for split, items in splits.items():
        text = "".join(json.dumps(item.row, ensure_ascii=False) + "\n" for item in items)
        write_text(folder / f"{split}.jsonl", text)
        lines.append(f"| {split}.jsonl | {len(items):,} | `{hashlib.sha256(text.encode()).hexdigest()}` |")
    counts = Counter(item.source for items in splits.values() for item in items)
    sources = [
        f"| {source.name} | {source.licence} | {rows:,} | {source.url} |" for source, rows in counts.most_common()
    ]
    card = CARD.format(
        title=title,
        about=about,
        task=task,
        seed=seed,
        version=__version__,
        files="\n".join(lines),
        sources="\n".join(sources),
    )
    write_text(folder / "README.md", card)

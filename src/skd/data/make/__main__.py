"""``python -m skd.data.make TASK --to data/``: real rows for the paper's four tasks, from sources that need no account.

Files go to a folder of the task's name: train.jsonl, validation.jsonl, test.jsonl, and README.md with sources and
licences. The same seed and the same sources give the same files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from skd.data.make.files import write_task
from skd.data.make.items import Sizes, splits_of
from skd.data.make.machine import Machine
from skd.data.make.makers import NAMES, find_maker
from skd.errors import SkdError
from skd.text import visible

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _make(options)
    except SkdError as error:
        print(visible(str(error)), file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skd.data.make", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help=f"one of {', '.join(NAMES)}", metavar="TASK")
    parser.add_argument("--to", type=Path, required=True, help="folder that receives a folder of the task's name")
    parser.add_argument("--seed", type=_count, default=0, help="(default: 0)")
    for split in ("train", "validation", "test"):
        size = getattr(Sizes, split)
        parser.add_argument(f"--{split}", type=_count, default=size, help=f"rows (default: {size})", metavar="N")
    parser.add_argument("--max-characters", type=_count, help="leave out rows that are longer", metavar="N")
    parser.add_argument("--sources", type=Path, help="folder of downloaded sources (default: TO/sources)")
    parser.add_argument("--offline", action="store_true", help="download nothing; use what is there")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {2**32 - 1}")
    return int(text)


def _make(options: argparse.Namespace) -> int:
    maker = find_maker(options.task)
    machine = Machine(options.sources or options.to / "sources", options.offline)
    sizes = Sizes(options.train, options.validation, options.test)
    items = maker.items(options.seed, machine)
    if options.max_characters is not None:
        items = (item for item in items if item.characters <= options.max_characters)
    splits = splits_of(items, sizes)
    folder = options.to / maker.folder
    write_task(folder, options.task, options.seed, maker.title, maker.about, splits)
    counts = ", ".join(f"{split} {len(items):,} of {sizes.of(split):,}" for split, items in splits.items())
    print(visible(f"{folder}: {counts}; sources and licences in {folder / 'README.md'}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

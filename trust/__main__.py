"""``python -m trust``: the parts one after the other, one table, one line of figures."""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import torch

import skd.train.loop  # noqa: F401 - imported once, here, for all children
from trust.kills import kills
from trust.tally import SIZES, Bench, Tally
from trust.toy import Toy

PARTS: Mapping[str, Callable[[Bench], Tally]] = {"kills": kills}
FIGURES = ("kills", "kills_in_save", "mutations", "fuzzed", "signals", "disk_full", "locks", "repeats", "canaries")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m trust", description="Trials by force of whole training runs.")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="these parts alone")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments and the mutations")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    room = Path(tempfile.mkdtemp(prefix="skd-trust-"))
    toy = Toy.make(room / "toy")
    gc.freeze()  # what the parent holds is not touched, and so not copied, in any child
    total = Counter[str]()
    print(f"size {options.size}, seed {options.seed}, in {room}", flush=True)
    for name in options.only:
        total += _part(name, toy, room / name, options.size, options.seed)
    if not total["failures"]:
        shutil.rmtree(room)
    figures = {name: total[name] for name in FIGURES if name in total} | {"failures": total["failures"]}
    print(f"FIGURES {json.dumps(figures)}")
    return min(total["failures"], 1)


def _part(name: str, toy: Toy, room: Path, size: str, seed: int) -> Counter[str]:
    """Run one part and print its rows of the table."""
    room.mkdir()
    started = time.monotonic()
    tally = PARTS[name](Bench(toy, SIZES[size], room, Random(f"{seed} {name}")))
    print(f"{name:<12} {len(tally.failures):>4} failures  {time.monotonic() - started:7.1f} s")
    for kind, count in tally.counts.items():
        print(f"  {count:>9,}  {kind}")
    for failure in tally.failures:
        print(f"  FAILED  {failure}")
    sys.stdout.flush()
    return tally.counts + Counter(failures=len(tally.failures))


if __name__ == "__main__":
    sys.exit(main())

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random

import torch

import skd.train.loop  # noqa: F401 - imported once, here, for all children
from trust.canaries import canaries
from trust.child import Child, Ended, fork
from trust.disk import disk
from trust.fuzz import fuzz
from trust.kills import kills
from trust.locks import locks
from trust.mutations import mutations
from trust.ranks import ranks
from trust.repeats import repeats
from trust.stops import stops
from trust.tally import SIZES, Bench, Tally
from trust.toy import MODES, Toy
from trust.wholes import Whole

PARTS: Mapping[str, Callable[[Bench], Tally]] = {
    "kills": kills,
    "signals": stops,
    "ranks": ranks,
    "disk": disk,
    "fuzz": fuzz,
    "repeats": repeats,
    "canaries": canaries,
    "locks": locks,
    "mutations": mutations,
}
FIGURES = (
    "kills",
    "kills_in_save",
    "mutations",
    "fuzzed",
    "signals",
    "rank_changes",
    "disk_full",
    "locks",
    "repeats",
    "canaries",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m trust", description="Trials by force of whole training runs.")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="these parts alone")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments and the mutations")
    parser.add_argument("--jobs", type=int, default=2, help="parts that run side by side")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    room = Path(tempfile.mkdtemp(prefix="skd-trust-"))
    print(f"size {options.size}, seed {options.seed}, in {room}", flush=True)
    toy = Toy.make(room / "toy")
    gc.freeze()  # what the parent holds is not touched, and so not copied, in any child
    wholes = {mode: Whole.of(toy, mode, room / "wholes" / mode) for mode in MODES}
    benches = {
        name: Bench(toy, wholes, SIZES[options.size], room / name, Random(f"{options.seed} {name}"))
        for name in options.only
    }
    total = Counter[str]()
    for name, ended in _side_by_side(benches, options.jobs):
        total += _shown(name, ended, room / name)
    if not total["failures"]:
        shutil.rmtree(room)
    figures = {name: total[name] for name in FIGURES if name in total} | {"failures": total["failures"]}
    print(f"FIGURES {json.dumps(figures)}")
    return min(total["failures"], 1)


def _side_by_side(benches: Mapping[str, Bench], jobs: int) -> Iterator[tuple[str, Ended]]:
    """Each part in a child of its own, ``jobs`` at a time; they come back as they end."""
    waiting, running = list(benches), dict[str, Child]()
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            running[name] = fork(partial(_part, name, benches[name]), benches[name].room)
        for name in [name for name, child in running.items() if not child.running()]:
            yield name, running.pop(name).wait()
        time.sleep(0.05)


def _part(name: str, bench: Bench) -> None:
    """Run one part and leave its tally in its room."""
    tally = PARTS[name](bench)
    (bench.room / "tally.json").write_text(json.dumps({"counts": tally.counts, "failures": tally.failures}))


def _shown(name: str, ended: Ended, room: Path) -> Counter[str]:
    """Print the rows of one part."""
    tally = Tally(failures=[f"the part broke: {ended.output[-2000:]}"])
    if not ended.code:
        values = json.loads((room / "tally.json").read_text())
        tally = Tally(Counter(values["counts"]), values["failures"])
    print(f"{name:<12} {len(tally.failures):>4} failures  {ended.seconds:7.1f} s")
    for kind, count in sorted(tally.counts.items()):
        if kind not in FIGURES:
            print(f"  {count:>9,}  {kind}")
    for failure in tally.failures:
        print(f"  FAILED  {failure}")
    sys.stdout.flush()
    return tally.counts + Counter(failures=len(tally.failures))


if __name__ == "__main__":
    sys.exit(main())

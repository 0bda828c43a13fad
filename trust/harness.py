"""Parts of trials one after the other, one table, one line of figures."""

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
from itertools import chain
from pathlib import Path
from random import Random

import torch

import skd.train.loop  # noqa: F401 - imported once, here, for all children
from trust.child import Child, Ended, fork
from trust.tally import SIZES, Bench, Tally
from trust.toy import Toy
from trust.wholes import Whole

__all__ = ["Parts", "run"]

Parts = Mapping[str, Callable[[Bench], Tally]]


def run(
    prog: str,
    parts: Parts,
    figures: Sequence[str],
    arguments: Sequence[str] | None,
    *,
    modes: Sequence[str] = (),
    alone: Sequence[str] = (),
) -> int:
    """Run what the command line asks for; 0 when nothing failed.

    ``modes``: those of which the parts need the uninterrupted run. The parts ``alone`` run after the others.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description="Trials by force of whole training runs.")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--only", choices=parts, nargs="+", default=list(parts), help="these parts alone")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments and the mutations")
    parser.add_argument("--jobs", type=int, default=2, help="parts that run side by side")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    room = Path(tempfile.mkdtemp(prefix="skd-trust-"))
    print(f"size {options.size}, seed {options.seed}, in {room}", flush=True)
    toy = Toy.make(room / "toy")
    gc.freeze()  # what the parent holds is not touched, and so not copied, in any child
    wholes = {mode: Whole.of(toy, mode, room / "wholes" / mode) for mode in modes}
    benches = {
        name: Bench(toy, wholes, SIZES[options.size], room / name, Random(f"{options.seed} {name}"))
        for name in options.only
    }
    tally = Tally()
    together = {name: bench for name, bench in benches.items() if name not in alone}
    last = {name: bench for name, bench in benches.items() if name in alone}
    for name, ended in chain(_side_by_side(parts, together, options.jobs), _side_by_side(parts, last, 1)):
        part = _tally(ended, room / name)
        _show(name, ended, part, figures)
        tally.add(part)
    if not tally.failures:
        shutil.rmtree(room)
    counted = {name: tally.counts[name] for name in figures if name in tally.counts}
    print(f"FIGURES {json.dumps({**counted, **tally.measured, 'failures': len(tally.failures)})}")
    return min(len(tally.failures), 1)


def _side_by_side(parts: Parts, benches: Mapping[str, Bench], jobs: int) -> Iterator[tuple[str, Ended]]:
    """Each part in a child of its own, ``jobs`` at a time; they come back as they end."""
    waiting, running = list(benches), dict[str, Child]()
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            running[name] = fork(partial(_part, parts[name], benches[name]), benches[name].room)
        for name in [name for name, child in running.items() if not child.running()]:
            yield name, running.pop(name).wait()
        time.sleep(0.05)


def _part(part: Callable[[Bench], Tally], bench: Bench) -> None:
    """Run one part and leave its tally in its room."""
    tally = part(bench)
    (bench.room / "tally.json").write_text(json.dumps(vars(tally)))


def _tally(ended: Ended, room: Path) -> Tally:
    if ended.code:
        return Tally(failures=[f"the part broke: {ended.output[-2000:]}"])
    values = json.loads((room / "tally.json").read_text())
    return Tally(Counter(values["counts"]), values["measured"], values["failures"])


def _show(name: str, ended: Ended, tally: Tally, figures: Sequence[str]) -> None:
    """Print the rows of one part."""
    print(f"{name:<12} {len(tally.failures):>4} failures  {ended.seconds:7.1f} s")
    for kind, count in sorted(tally.counts.items()):
        if kind not in figures:
            print(f"  {count:>9,}  {kind}")
    for kind, value in tally.measured.items():
        print(f"  {value:>9.3g}  {kind.replace('_', ' ')}")
    for failure in tally.failures:
        print(f"  FAILED  {failure}")
    sys.stdout.flush()

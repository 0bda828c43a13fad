"""Our training steps against their rivals on the same work: same pair, prompts and machine, one thread, in turns.

    make bench ARGS="--json bench.json"     # all of it, 40 minutes or more; the same command goes on where it stopped
    make bench ARGS="--json bench.json --only step_b1 light_b1"
    make bench QUICK=1                      # smaller models and fewer turns, under 8 minutes on two quiet cores
    python -m benchmarks.speed.page bench.json     # the tables and plots of docs/speed.md from it

CPU seconds per response token of the whole process, medians over turns A B A B; the turns of a table are taken
together, so compare within a table. The acceptance rate alpha stands beside every ratio. The rivals run in an
environment of their own, .venv-bench, made at the first use, as is the student of SmolLM2-135M (20 minutes more). The
last line is ``FIGURES {json}``.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

from benchmarks.speed.machine import described
from benchmarks.speed.plan import FULL, QUICK, Plan
from benchmarks.speed.store import Store
from benchmarks.speed.tables import figures, printed
from benchmarks.speed.turns import rivals_python


def main() -> None:
    """Measure, print the tables and the figures."""
    options = _options()
    plan: Plan = QUICK if options.quick else FULL
    python = rivals_python(print)
    store = Store.opened(options.json, plan.name)
    done = set() if options.again else set(store.results)

    started = time.monotonic()

    def wanted(name: str) -> bool:
        late = time.monotonic() - started > 60 * options.minutes
        return not late and name not in done and (options.only is None or name in options.only)

    with tempfile.TemporaryDirectory() as directory:
        for table in plan.tables(Path(directory), wanted):
            turns = table.measure(python, plan.seconds)
            store.add(table.name, turns, described())
            print(printed(table.name, turns), flush=True)
    print("FIGURES " + json.dumps(figures(store.results)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write everything measured to this file, table by table")
    parser.add_argument("--only", nargs="+", help="only these tables")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further table after so long")
    parser.add_argument("--again", action="store_true", help="also tables that the file has already")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Our training steps against their rivals on the same work: same pair, prompts and machine, one thread, in turns.

    make bench            # all of it
    make bench QUICK=1    # smaller models and fewer turns, under 8 minutes on two quiet cores

CPU seconds per response token of the whole process, medians over turns A B A B; the turns of a table are taken
together, so compare within a table. The acceptance rate alpha stands beside every ratio. The rivals run in an
environment of their own, .venv-bench, made at the first use. The last line is ``FIGURES {json}``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.speed.machine import described
from benchmarks.speed.plan import FULL, QUICK, Plan
from benchmarks.speed.tables import Results, figures, printed
from benchmarks.speed.turns import rivals_python


def main() -> None:
    """Measure, print the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--only", nargs="+", help="only these tables")
    options = parser.parse_args()
    plan: Plan = QUICK if options.quick else FULL
    python = rivals_python(print)
    results: Results = {}
    with tempfile.TemporaryDirectory() as directory:
        for table in plan.tables(Path(directory)):
            if options.only is None or table.name in options.only:
                results[table.name] = table.measure(python)
                print(printed(table.name, results[table.name]), flush=True)
    found = figures(results)
    if options.json is not None:
        report = {"machine": described(), "plan": plan.name, "results": results, "figures": found}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print("FIGURES " + json.dumps(found))


if __name__ == "__main__":
    main()

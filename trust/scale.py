"""``python -m trust.scale``: one run in several processes is disturbed, spread otherwise, and compared."""

from __future__ import annotations

import sys

from trust.harness import Parts, run
from trust.launched import launched
from trust.lengths import lengths
from trust.overhead import overhead
from trust.rank_faults import failing, stuck
from trust.spreads import SKIPPED, curves, equal_runs, gradients

PARTS: Parts = {
    "stuck": stuck,
    "failing": failing,
    "launched": launched,
    "lengths": lengths,
    "gradients": gradients,
    "curves": curves,
    "equal": equal_runs,
    "overhead": overhead,
}
FIGURES = ("rank_faults", "launches", "uneven_rollouts", "gradients", "curves", "rank_changes", "equal_runs")

if __name__ == "__main__":
    if SKIPPED:
        print(f"skipped: train.sharding {', '.join(SKIPPED)}; DeepSpeed is not installed (docs/scale.md)")
    sys.exit(run("trust.scale", PARTS, FIGURES, None, alone=("overhead",)))

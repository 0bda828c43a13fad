"""``python -m trust.scale``: one run in several processes is disturbed, spread otherwise, and compared."""

from __future__ import annotations

import sys

from trust.harness import Parts, run
from trust.rank_faults import rank_faults

PARTS: Parts = {
    "faults": rank_faults,
}
FIGURES = ("rank_faults",)

if __name__ == "__main__":
    sys.exit(run("trust.scale", PARTS, FIGURES, None))

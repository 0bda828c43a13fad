"""``python -m trust``: one run is killed, damaged, starved and interrupted in every way."""

from __future__ import annotations

import sys

from trust.canaries import canaries
from trust.disk import disk
from trust.fuzz import fuzz
from trust.harness import Parts, run
from trust.kills import kills
from trust.locks import locks
from trust.mutations import mutations
from trust.ranks import ranks
from trust.repeats import repeats
from trust.stops import stops
from trust.toy import MODES

PARTS: Parts = {
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


if __name__ == "__main__":
    sys.exit(run("trust", PARTS, FIGURES, None, modes=list(MODES)))

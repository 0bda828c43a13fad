"""How much of micro-batches is padding, cut where that is cheapest and filled to the brim.

    python -m benchmarks.padding

Prompts of 56 to 66 tokens, responses of log-normal lengths (median 256, sigma 0.6, at most 1,024), 8,192 tokens to a
micro-batch, means over 20 draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import mean

from skd.data.batching import micro_batches

_BUDGET, _DRAWS = 8192, 20


def main() -> None:
    """Print a line for each number of rows."""
    for rows in (8, 32, 64, 256):
        drawn = [_lengths(rows, Random(seed)) for seed in range(_DRAWS)]
        cut = [[[lengths[i] for i in group] for group in micro_batches(lengths, _BUDGET, "cpu")] for lengths in drawn]
        full = [_filled(lengths) for lengths in drawn]
        print(f"{rows:4} rows: {_told(cut)}; filled to the brim {_told(full)}")


def _lengths(rows: int, random: Random) -> list[int]:
    return [
        random.randint(56, 66) + min(1024, max(1, int(random.lognormvariate(math.log(256), 0.6)))) for _ in range(rows)
    ]


def _filled(lengths: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        if groups and (len(groups[-1]) + 1) * groups[-1][0] <= _BUDGET:
            groups[-1].append(length)
        else:
            groups.append([length])
    return groups


def _told(cuts: Sequence[Sequence[Sequence[int]]]) -> str:
    padding = mean(1 - sum(map(sum, groups)) / sum(len(g) * g[0] for g in groups) for groups in cuts)
    return f"{padding:.1%} padding in {mean(map(len, cuts)):.1f} micro-batches"


if __name__ == "__main__":
    main()

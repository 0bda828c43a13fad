"""What packed weights (``skd.sampling.packed``) save of a rollout on a CPU.

    python -m benchmarks.packed_weights [--batches 1 8 32] [--tokens 64] [--rounds 3]

A random pair of 576 x 15 and 576 x 5 with 49,152 ids, prompts of 56 to 66 tokens, blocks of 3 of which every draft is
kept, in float32 and bfloat16, one thread, in turns: as torch stores them (plain), packed. Medians of the CPU seconds of
a rollout, packing included; the last line is ``FIGURES {json}``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

import skd
from benchmarks.pairs import random_pair, random_prompts
from skd.models import Pair
from skd.sampling import Eager


def main() -> None:
    """Measure both in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="length of a response")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for dtype in ("float32", "bfloat16"):
        pair = random_pair(dtype)
        for batch in options.batches:
            plain, packed = _medians(pair, batch, options.tokens, options.rounds)
            figures[f"{dtype}_b{batch}"] = round(packed / plain, 3)
            print(f"{dtype:8} batch {batch:3}: plain {plain:6.2f} s, packed {packed:6.2f} s, {packed / plain:.2f}")
    print("FIGURES " + json.dumps(figures))


def _medians(pair: Pair, batch: int, tokens: int, rounds: int) -> tuple[float, float]:
    found: dict[Eager, list[float]] = {Eager(0): [], Eager(): []}
    for epoch in range(rounds + 1):
        for execution, seconds in found.items():
            spent = _rollout(pair, batch, tokens, epoch, execution)
            if epoch:  # the first does not count
                seconds.append(spent)
    plain, packed = map(statistics.median, found.values())
    return plain, packed


def _rollout(pair: Pair, batch: int, tokens: int, epoch: int, execution: Eager) -> float:
    started = time.process_time()
    skd.interleave(
        pair,
        random_prompts(batch),
        gate=skd.TopK(49_152),
        block=3,
        max_new_tokens=tokens,
        epoch=epoch,
        execution=execution,
    )
    return time.process_time() - started


if __name__ == "__main__":
    main()

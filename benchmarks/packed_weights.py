"""What packed weights (``skd.sampling.packed``) save of a product and of a rollout on a CPU.

    python -m benchmarks.packed_weights [--batches 1 8 32] [--tokens 64] [--rounds 3]

First CPU milliseconds of products with 100 MB of float32 weights, by rows; then rollouts of a random pair of 576 x 15
and 576 x 5 with 49,152 ids: prompts of 56 to 66 tokens, blocks of 3 of which every draft is kept, in both types of
number. One thread, in turns: as torch stores weights (plain), packed, and packed with the teacher's copies kept from
rollout to rollout as a training run keeps them. Medians of CPU seconds, packing included; the last line is
``FIGURES {json}``: packed and kept over plain.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import linear

import skd
from benchmarks.pairs import random_pair, random_prompts
from skd.models import Pair
from skd.sampling import Eager
from skd.sampling.packed import KeptCopies, packed, packed_product

_ROWS = (1, 2, 4, 8, 16, 40, 64, 256, 512)


def main() -> None:
    """Measure both in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="length of a response")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    _products()
    figures = {}
    for dtype in ("float32", "bfloat16"):
        pair = random_pair(dtype)
        for batch in options.batches:
            plain, *others = _medians(pair, batch, options.tokens, options.rounds)
            ratios = [round(seconds / plain, 3) for seconds in others]
            figures[f"{dtype}_b{batch}"] = ratios
            print(f"{dtype:8} batch {batch:3}: plain {plain:6.2f} s; packed, kept: {ratios} of it", flush=True)
    print("FIGURES " + json.dumps(figures))


@torch.inference_mode()
def _products() -> None:
    for shape, count in (((1536, 576), 28), ((49_152, 576), 1)):
        weights = [torch.randn(shape) for _ in range(count)]
        copies = [packed(weight) for weight in weights]
        print(f"{count} x {shape[0]} x {shape[1]}: packing {_median(lambda: [packed(w) for w in weights]):.1f} ms")  # noqa: B023
        for rows in _ROWS:
            states = torch.randn(rows, shape[1])
            plain = _median(lambda: [linear(states, weight) for weight in weights])  # noqa: B023
            quick = _median(lambda: [packed_product(states, copy) for copy in copies])  # noqa: B023
            print(f"  {rows:4} rows: torch {plain:6.1f} ms, packed {quick:6.1f} ms", flush=True)


def _median(run: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times):
        started = time.process_time()
        run()
        found.append(1e3 * (time.process_time() - started))
    return statistics.median(found)


def _medians(pair: Pair, batch: int, tokens: int, rounds: int) -> list[float]:
    sides: list[tuple[Eager, list[float]]] = [(Eager(0), []), (Eager(), []), (Eager(kept=KeptCopies()), [])]
    for epoch in range(rounds + 1):
        for execution, seconds in sides:
            spent = _rollout(pair, batch, tokens, epoch, execution)
            if epoch:  # the first does not count
                seconds.append(spent)
    return [statistics.median(seconds) for _, seconds in sides]


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

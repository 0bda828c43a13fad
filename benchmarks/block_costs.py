"""Blocks by the models' sizes against blocks by measured costs: whole rollouts in turns A B A B, one thread.

    python -m benchmarks.block_costs [--rounds 4] [--tokens 64]

Pairs of a chosen acceptance (``benchmarks.speed.pair``); CPU seconds of the process, medians, and the mean block.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import skd
from benchmarks.pairs import random_prompts
from benchmarks.speed.pair import SHAPES, save_pair
from skd.sampling.calibrate import measured_costs
from skd.sampling.pace import Costs

Turn = tuple[float, float, float]
"""CPU seconds, mean block, acceptance rate."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = SHAPES["quick"]
    print("| alpha | batch | student, us | teacher, us | block: sizes | measured | s: sizes | measured | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for noise in shape.noise:
            pair = skd.load_pair(*save_pair(Path(directory), shape, noise), device="cpu")
            for batch in options.batches:
                costs = measured_costs(pair, random_prompts(batch), batch)
                sides: dict[skd.Pair, list[Turn]] = {pair: [], replace(pair, costs=costs): []}
                for seed in range(options.rounds + 1):
                    for one, turns in sides.items():
                        turns.append(_turn(one, batch, options.tokens, seed))
                # The first does not count.
                print(_row(costs, batch, [turns[1:] for turns in sides.values()]), flush=True)


def _turn(pair: skd.Pair, batch: int, tokens: int, seed: int) -> Turn:
    started = time.process_time()
    rollout = skd.interleave(pair, random_prompts(batch), max_new_tokens=tokens, seed=seed)
    seconds, stats = time.process_time() - started, rollout.stats
    return seconds, stats.drafted / (stats.rounds * batch), rollout.acceptance_rate or 0.0


def _row(costs: Costs, batch: int, turns: list[list[Turn]]) -> str:
    seconds = [statistics.median(turn[0] for turn in side) for side in turns]
    blocks = [statistics.mean(turn[1] for turn in side) for side in turns]
    alpha = statistics.mean(turn[2] for side in turns for turn in side)
    lines = [f"{1e6 * one:.0f} + {1e6 * each:.0f}" for one, each in (costs.student, costs.teacher)]
    numbers = [f"{alpha:.2f}", str(batch), *lines, *(f"{block:.2f}" for block in blocks)]
    numbers += [f"{value:.2f}" for value in (*seconds, seconds[1] / seconds[0])]
    return f"| {' | '.join(numbers)} |"


if __name__ == "__main__":
    main()

"""What it saves to keep the prompts that the frozen teacher has read, and what it costs in the first epoch.

    python -m benchmarks.prompt_cache [--batch 8] [--responses 1] [--tokens 64] [--rounds 5]

A random pair of 576 x 15 and 576 x 5 with 49,152 ids, prompts of 56 to 66 tokens, one thread, in
turns: no cache (plain), a new one (first), one that has all prompts (later). CPU seconds of a rollout and of reading
its prompts by both models; the last line is ``FIGURES {json}`` with the medians.
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
from skd.types import Prompts


def main() -> None:
    """Measure the three in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--responses", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64, help="length of a response")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # The sampler's clock, too: on a busy machine wall time says little.
    time.perf_counter = time.process_time
    pair, prompts = random_pair(), random_prompts(options.batch)
    full = skd.PromptCache(10_000)
    found: dict[str, list[tuple[float, float]]] = {"plain": [], "first": [], "later": []}
    _rollout(pair, prompts, options, full, 0)
    for number in range(1, options.rounds + 1):
        for name, kept in (("plain", None), ("first", skd.PromptCache(10_000)), ("later", full)):
            found[name].append(_rollout(pair, prompts, options, kept, number))
    figures = {
        name: [round(statistics.median(part), 3) for part in zip(*times, strict=True)] for name, times in found.items()
    }
    for name, (whole, reading) in figures.items():
        print(f"{name:6} rollout {whole:7.3f} s, reading prompts {reading:6.3f} s")
    print(f"kept: {full.num_bytes / 1e6 / options.batch:.2f} MB for each prompt")
    print("FIGURES " + json.dumps(figures))


def _rollout(
    pair: Pair, prompts: Prompts, options: argparse.Namespace, kept: skd.PromptCache | None, epoch: int
) -> tuple[float, float]:
    started = time.process_time()
    rollout = skd.interleave(
        pair,
        prompts,
        gate=skd.TopK(25_000),
        max_new_tokens=options.tokens,
        responses_per_prompt=options.responses,
        epoch=epoch,
        kept_prompts=kept,
    )
    return time.process_time() - started, rollout.stats.seconds_prefill


if __name__ == "__main__":
    main()

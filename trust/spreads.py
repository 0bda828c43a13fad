"""One training spread over processes in several ways: the same gradients, the same curve, the same end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from skd.config import config_of
from skd.ranks.meeting import meet
from skd.sampling.clock import Clock
from skd.train import zero
from skd.train.setup import prepare
from skd.train.spread import on_main
from skd.train.step import _gradients, roll_out_step
from trust.child import train
from trust.processes import start_ranks, train_ranks
from trust.rank_faults import CONFIGURED, whole_of_two
from trust.ranks import STEADY, killed_after, rows_of, unlike
from trust.tally import Bench, Tally
from trust.toy import MODES

__all__ = ["SHARDINGS", "SKIPPED", "curves", "equal_runs", "gradients"]

ZERO = ("zero2", "zero3")
SKIPPED = () if find_spec("deepspeed") else ZERO
"""Values of train.sharding that cannot be tried here."""
SHARDINGS = ("fsdp2", *(each for each in ZERO if each not in SKIPPED))
"""Values of train.sharding whose runs are compared with whole copies."""
STEPS = 20
CLOSE = 1e-5
"""Largest difference of a loss, a gradient norm or a weight between ways to spread one training."""
EQUAL = 1e-6
"""Largest difference of a gradient; under DeepSpeed, which divides before it sums, as a share of the largest one."""

# DeepSpeed leaves small weights whole, and those of the toy all are.
vars(zero)["PERSISTENT"] = 0


def _config(bench: Bench, mode: str, **train_keys: Any) -> dict[str, Any]:
    config = bench.toy.config(mode, **STEADY, **train_keys)
    return {**config, "student": str(bench.toy.directory / "steady")}


def gradients(bench: Bench) -> Tally:
    """The gradients of a step, of one process and of two: every mode, whole and in shards."""
    tally = Tally()
    for mode in MODES:
        alone = _gradients_of(bench, mode, 1, "none")
        for sharding in ("none", *SHARDINGS):
            together = _gradients_of(bench, mode, 2, sharding)
            expected = load_file(alone / "gradients")
            farthest = _farthest(load_file(together / "gradients"), expected)
            if sharding in ZERO:
                farthest /= max(gradient.abs().max().item() for gradient in expected.values())
            complaints = [f"a gradient differs by {farthest:.1e}"] if not farthest <= EQUAL else []
            if (together / "order").read_text() != (alone / "order").read_text():
                complaints.append("other samples, or another order")
            tally.note(f"gradients in {mode}", *(f"{together}: {complaint}" for complaint in complaints))
            tally.counts["gradients"] += 1
            tally.most("gradient_difference", farthest)
    return tally


def _gradients_of(bench: Bench, mode: str, world_size: int, sharding: str) -> Path:
    """The directory in which the first of the processes left the gradients of the first step, and its samples."""
    directory = bench.room / f"{mode}-{sharding}-{world_size}"
    config = _config(bench, mode, sharding=sharding, micro_batch_tokens=16)

    def work(rank: int) -> None:
        run = prepare(config_of(config), meet(cpu=True))
        rollout, _, sample_ids = roll_out_step(run, 0)
        _gradients(run, 0, rollout, Clock(run.accelerator.device))
        whole = on_main(run.spread.gradients(), run.accelerator)
        if rank == 0:
            save_file(whole, directory / "gradients")
            (directory / "order").write_text(json.dumps(sample_ids))

    for child in start_ranks(directory, work, world_size):
        ended = child.wait()
        if ended.code:
            raise RuntimeError(ended.output)
    return directory


def _farthest(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in other)


def curves(bench: Bench) -> Tally:
    """Shards learn what whole copies learn; a run goes on in other numbers of processes and spread otherwise."""
    tally, mode = Tally(), "data_set"
    whole = bench.room / "whole"
    train_ranks(whole, _config(bench, mode, max_steps=STEPS), 2)
    for sharding in SHARDINGS:
        directory = bench.room / sharding
        ended = train_ranks(directory, _config(bench, mode, max_steps=STEPS, sharding=sharding), 2)
        complaints = [f"exit code {one.code}: {one.output[-500:]}" for one in ended if one.code]
        if not complaints:
            difference = _curve_difference(directory / "run", whole / "run")
            complaints = [f"the curve differs by {difference:.1e}"] if not difference <= CLOSE else []
            complaints += unlike(directory / "run", whole / "run", mode, STEPS)
            tally.most("curve_difference", difference)
        tally.note(f"curves of {sharding}", *(f"{directory}: {complaint}" for complaint in complaints))
        tally.counts["curves"] += 1
        _changes(bench, tally, sharding)
    return tally


def _curve_difference(run: Path, whole: Path) -> float:
    """Largest difference of a loss or a gradient norm, of those above 1 as a share."""
    rows, expected = ([row for row in rows_of(each / "metrics.jsonl") if "lr" in row] for each in (run, whole))
    return max(
        abs(float(row[key]) - float(other[key])) / max(1.0, float(other[key]))
        for row, other in zip(rows, expected, strict=True)
        for key in ("loss", "grad_norm")
    )


def _changes(bench: Bench, tally: Tally, sharding: str) -> None:
    """Killed again and again, and resumed by other numbers of processes, once by layers: no checkpoint knows of it."""
    whole, directory = bench.room / "alone", bench.room / f"{sharding}-changes"
    if not whole.exists():
        train(whole, _config(bench, "data_set", max_steps=STEPS)).wait()
    alone, shards, layers = {"sharding": "none"}, {"sharding": sharding}, {"sharding": sharding, "gather": "layer"}
    ways = [(2, shards), (1, alone), (3, layers), (2, alone), (2, shards)]
    for world_size, way in ways[:-1]:
        config = _config(bench, "data_set", max_steps=STEPS, **way)
        train_ranks(directory, config, world_size, {0: killed_after(STEPS // len(ways))})
    last = train_ranks(directory, _config(bench, "data_set", max_steps=STEPS, **shards), 2)
    complaints = [f"exit code {one.code}: {one.output[-500:]}" for one in last if one.code]
    tally.note("changes of the processes", *complaints, *unlike(directory / "run", whole / "run", "data_set", STEPS))
    tally.counts["rank_changes"] += len(ways) - 1


def equal_runs(bench: Bench) -> Tally:
    """Two processes end with the same bytes each time, whole, in shards, and where these are gathered by layers."""
    tally, firsts = Tally(), dict[str, dict[str, str]]()
    for sharding, gather in (("none", "step"), *product(SHARDINGS, ("step", "layer"))):
        for number in range(bench.size.equal_ranks):
            name = f"{sharding}-{gather}-{number}"
            found = whole_of_two(bench, "mixed", name, sharding=sharding, gather=gather)
            first = firsts.setdefault(sharding, found)
            differs = (key for key in found.keys() | first.keys() if found.get(key) != first.get(key))
            different = sorted(key for key in differs if gather == "step" or not key.endswith(CONFIGURED))
            tally.note(f"runs of two, {sharding}", *([f"{name}: {', '.join(different)} differ"] if different else []))
            tally.counts["equal_runs"] += 1
            shutil.rmtree(bench.room / name)
    return tally

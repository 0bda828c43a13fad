"""Two processes whose responses are of very different lengths: nobody waits for ever, and no sample is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skd import cli
from skd.data.order import batch_at
from skd.models import Pair
from skd.policies import Interleaved, Policy, RolloutKey, Student
from skd.train import loop
from skd.types import Prompts, Rollout
from trust.child import LIMIT_SECONDS
from trust.processes import start_ranks
from trust.ranks import rows_of
from trust.tally import Bench, Tally
from trust.toy import ROWS

__all__ = ["lengths"]

LONG, SHORT = 24, 1


@dataclass
class _Uneven:
    """Long responses in one process, short ones in the other, in turn."""

    policy: Interleaved | Student
    rank: int
    rollouts: int = 0

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        self.rollouts += 1
        cap = LONG if (self.rollouts + self.rank) % 2 else SHORT
        policy: Policy = replace(self.policy, sampling=replace(self.policy.sampling, max_new_tokens=cap))
        rollout = policy.rollout(pair, prompts, key)
        with Path(f"lengths-{self.rank}").open("a") as file:
            file.write(f"{rollout.num_tokens}\n")
        return rollout


def lengths(bench: Bench) -> Tally:
    """The student alone and both models, so many rollouts each."""
    tally = Tally()
    for mode in ("on_policy", "skd"):
        directory, steps = bench.room / mode, bench.size.uneven_rollouts
        config = bench.toy.config(mode, max_steps=steps, validate_every=steps, rank_timeout_seconds=60)
        complaints = _ends(directory, config) or _lost(directory, config)
        tally.note(f"runs of {steps} rollouts", *(f"{directory}: {complaint}" for complaint in complaints))
        tally.counts["uneven_rollouts"] += steps
    return tally


def _ends(directory: Path, config: dict[str, Any]) -> list[str]:
    def work(rank: int) -> int:
        prepare = vars(loop)["prepare"]

        def uneven(*given: Any, **named: Any) -> Any:
            run = prepare(*given, **named)
            return replace(run, policy=_Uneven(run.policy, rank))

        vars(loop)["prepare"] = uneven
        return cli.main(["train", "run.yaml"])

    directory.mkdir(parents=True)
    (directory / "run.yaml").write_text(json.dumps(config))
    ended = [child.wait(4 * LIMIT_SECONDS) for child in start_ranks(directory, work, 2)]
    return [f"exit code {one.code}{', hung' * one.hung}: {one.output[-500:]}" for one in ended if one.code]


def _lost(directory: Path, config: dict[str, Any]) -> list[str]:
    """What the logs lack of what the order of the data says."""
    keys, run = config["train"], directory / "run"
    steps = [row for row in rows_of(run / "metrics.jsonl") if "lr" in row]
    size = keys["batch_size"]
    expected = [[row for _, row in batch_at(step * size, size, ROWS, keys["seed"])] for step in range(len(steps))]
    complaints = []
    if [row["sample_ids"] for row in rows_of(run / "trained.jsonl")] != expected or len(steps) != keys["max_steps"]:
        complaints.append("other samples, or another order")
    if any(row["responses"] != size or row["skipped"] for row in steps):
        complaints.append("responses were dropped")
    counts = [[int(line) for line in (directory / f"lengths-{rank}").read_text().split()] for rank in range(2)]
    if not all(max(pair) > 3 * min(pair) for pair in zip(*counts, strict=True)):
        complaints.append("the lengths were not forced apart")
    return complaints

"""One optimiser step: rollouts for all of it, micro-batches by token budget, one division by the global weight."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from skd.data.batching import micro_batches
from skd.data.order import batch_at
from skd.faults import point
from skd.policies import RolloutKey, rolled_out
from skd.sampling.clock import Clock
from skd.train.batch import collate
from skd.train.memory_faults import memory_faults
from skd.train.nonfinite import refuse_nonfinite, restored_dump
from skd.train.positions import positions
from skd.train.run import Run
from skd.train.scale import overflowed, refuse_smallest
from skd.train.schedule import lr_factor
from skd.train.split import padding, peak_mb, split_of_step
from skd.types import DATA, STUDENT, TEACHER, LossSum, Rollout, by_route

__all__ = ["StepReport", "redo_step", "roll_out_step", "row_batches", "train_step"]

_AUTHORS = {"data": DATA, "student": STUDENT, "teacher": TEACHER}
_QUANTITIES = ("loss", "nll", "kl")
"""Per-token quantities that are logged by author: the objective's loss, the NLL, the forward KL to the teacher."""


@dataclass(frozen=True)
class StepReport:
    """What a step did."""

    metrics: dict[str, float | int | None]
    positions: dict[str, list[int]]
    """Counts by response position; see ``skd.train.positions``."""
    teachers: dict[str, dict[str, float | int | None]]
    """Responses, tokens and acceptance of each of several teachers, by name."""
    rollout: Rollout
    """The responses of this rank."""
    epochs: list[int]
    sample_ids: list[int]
    """The prompts of the whole step, all ranks, in data order."""


class _Sums:
    """Sums over the micro-batches of this rank, float64 on the device: the host looks at them once in a step."""

    def __init__(self) -> None:
        self._total_S: Tensor | None = None

    def add(self, sums: LossSum, author_N: Tensor) -> None:
        mine_AN = torch.stack([author_N == author for author in _AUTHORS.values()])
        parts = [sums.loss.detach().double().view(1), mine_AN.sum(1, dtype=torch.float64)]
        for value_N in (sums.token_loss_N, sums.token_nll_N, sums.token_kl_N):
            values = torch.zeros_like(author_N, dtype=torch.float64) if value_N is None else value_N.double()
            parts.append(torch.where(mine_AN, values, 0.0).sum(1))
        total_S = torch.cat(parts)
        self._total_S = total_S if self._total_S is None else self._total_S + total_S

    def read(self) -> list[float]:
        """The loss; tokens by author; each quantity by author."""
        assert self._total_S is not None, "no micro-batch was added"
        numbers: list[float] = self._total_S.tolist()
        return numbers


def train_step(run: Run, step: int) -> StepReport:
    """Take optimiser step number ``step``, counted from 0.

    Raises NumericsError (SKD-T01) before the update when the loss or the gradient norm is not finite, ResourceError
    (SKD-T12) when memory runs out, and Interrupted while responses are sampled when a signal arrives.
    """
    settings = run.config.train
    started, cpu_started = time.perf_counter(), time.process_time()
    used = _usage(run)
    rollout, epochs, sample_ids = roll_out_step(run, step)
    sampled = time.perf_counter()

    clock = Clock(run.accelerator.device)
    with memory_faults(step, "the student learns", _sizes(rollout)), run.recomputing():
        metrics, grad_norm = _gradients(run, step, rollout, clock)
    overflow = overflowed(run)
    refuse_nonfinite(run, step, metrics["loss"], 0.0 if overflow else grad_norm, rollout)
    if overflow:
        refuse_smallest(run, step, metrics["loss"], rollout)
    lr = settings.lr * lr_factor(step, run.total_steps, warmup=settings.warmup, shape=settings.schedule)
    point("update")
    metrics |= _update(run, lr, grad_norm, overflow)
    point("step")

    clock.lap("optimiser")
    metrics |= _used(run, used)
    metrics |= _engine(run, step, rollout)
    split = split_of_step(rollout.stats, clock.seconds())
    ended = time.perf_counter()
    metrics |= {"grad_norm": None if overflow else grad_norm, "lr": lr, "peak_mb": peak_mb(run.accelerator.device)}
    metrics |= split | {"seconds_idle": max(0.0, ended - started - sum(split.values()))}
    metrics |= {"seconds_train": ended - sampled, "seconds_cpu": time.process_time() - cpu_started}
    metrics |= {"seconds": ended - started, "tokens_per_second": (metrics["tokens"] or 0) / (ended - started)}
    return StepReport(metrics, positions(run, rollout), _by_teacher(run, rollout), rollout, epochs, sample_ids)


def _update(run: Run, lr: float, grad_norm: float, overflow: bool) -> dict[str, float]:
    """Let the optimiser take the gradients, unless they overflowed; returns the loss scale where there is one."""
    if overflow:
        run.optimizer.zero_grad(set_to_none=True)
    else:
        run.spread.update(lr, grad_norm)
    run.scaler.update()
    return {"loss_scale": run.scaler.get_scale()} if run.scaler.is_enabled() else {}


def _gradients(run: Run, step: int, rollout: Rollout, clock: Clock) -> tuple[dict[str, float | int | None], float]:
    """Put the gradients of a step's responses into the student; returns the metrics, and the gradients' norm."""
    settings = run.config.train
    with run.recomputing():
        weights, total_weight = run.token_weights(rollout)
    # Nothing to learn from (every response empty) is a step with gradient zero, not a division by zero.
    total_weight = run.total([total_weight])[0] or 1.0
    batches = row_batches(rollout, settings.micro_batch_tokens, run.accelerator.device.type)
    count = run.largest(max(len(batches), 1))
    sums = _Sums()
    run.optimizer.zero_grad(set_to_none=True)
    with run.spread.learner.training():
        for index in range(count):
            rows = batches[index] if index < len(batches) else []
            clock.lap("data")
            with run.recomputing():
                evidence = run.evidence(rollout, rows)
            clock.lap("evidence")
            batch = collate(rollout, rows, weights, evidence, run.progress(step), run.accelerator.device)
            torch.manual_seed(_dropout_seed(settings.known_seed, step, index, run.rank))
            with run.spread.backward_of(last=index == count - 1):
                clock.lap("data")
                loss = run.spread.module(batch)
                clock.lap("forward")
                # Times the ranks, because the wrapper averages gradients over them.
                run.spread.backward(run.scaler.scale(loss.loss * (run.world_size / total_weight)))
            clock.lap("backward")
            sums.add(loss, batch.tokens.author_N)
            point("backward")
    run.scaler.unscale_(run.optimizer)
    metrics = _metrics(run, rollout, sums, total_weight) | {"padding": padding(rollout, batches)}
    return metrics, run.spread.grad_norm()


def redo_step(run: Run, dump: Path) -> tuple[float, float]:
    """Take the step of a dump ``nonfinite-step-N.json`` once more: its loss and gradient norm.

    ``run`` is of the same configuration and the same ranks; its student gets the weights of the dump, and the
    gradients, to look at. No update is made. The bits are those of the step unless the sampler kept the teacher's
    evidence: that is computed again, which rounds otherwise.
    """
    step, rollout = restored_dump(run, dump)
    scale = run.scaler.state_dict()
    with run.spread.visit():
        metrics, grad_norm = _gradients(run, step, rollout, Clock(run.accelerator.device))
    if scale:
        # Otherwise the scaler would not divide a second time.
        run.scaler.update()
        run.scaler.load_state_dict(scale)
    return float(metrics["loss"] or 0.0), grad_norm


def roll_out_step(run: Run, step: int) -> tuple[Rollout, list[int], list[int]]:
    """This rank's responses of a step, with the epochs and sample ids of all its prompts."""
    settings = run.config.train
    size = settings.batch_size
    keys = batch_at(step * size, size, len(run.prompts), settings.known_seed)
    epochs, rows = [epoch for epoch, _ in keys], [row for _, row in keys]
    prompts = run.prompts.select(rows)
    key = RolloutKey(settings.known_seed, epochs[run.rank :: run.world_size], run.progress(step), run.check, step)
    sizes = dict(zip(prompts.sample_ids, map(len, prompts.ids), strict=True))
    with run.interruptible(), memory_faults(step, "responses are sampled", sizes), run.spread.visit():
        rollout = rolled_out(run.policy, run.pair, run.shard(prompts), key)
    point("rollout")
    return rollout, epochs, list(prompts.sample_ids)


def _sizes(rollout: Rollout) -> dict[int, int]:
    """Tokens of each row with its longest response."""
    sizes: dict[int, int] = {}
    for row, prompt, response in zip(rollout.sample_ids, rollout.prompt_ids, rollout.response_ids, strict=True):
        sizes[row] = max(sizes.get(row, 0), len(prompt) + len(response))
    return sizes


def row_batches(rollout: Rollout, token_budget: int, device: str) -> list[list[int]]:
    """Rows of the responses that have tokens, in micro-batches of at most ``token_budget`` padded tokens, each of one
    teacher."""
    batches = []
    for _, rows in by_route(rollout.routes, len(rollout)):
        rows = [row for row in rows if len(rollout.response_ids[row])]
        lengths = [len(rollout.prompt_ids[row]) + len(rollout.response_ids[row]) for row in rows]
        batches += [[rows[i] for i in group] for group in micro_batches(lengths, token_budget, device)]
    return batches


def _dropout_seed(seed: int, step: int, index: int, rank: int) -> int:
    """Dropout as a pure function of its place in the run, so that a resumed run drops the same units."""
    text = f"dropout {seed} {step} {index} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _metrics(run: Run, rollout: Rollout, sums: _Sums, total_weight: float) -> dict[str, float | int | None]:
    stats = rollout.stats
    counts = [
        rollout.num_tokens,
        len(rollout),
        rollout.num_untrainable,
        int(rollout.truncated.sum()),
        stats.kept,
        stats.replaced,
        stats.wasted,
        stats.teacher_read,
        stats.teacher_reused,
    ]
    totals = run.total([*counts, *sums.read()])
    tokens, responses, skipped, truncated, kept, replaced, wasted, read, reused, loss, *rest = totals
    numbers = dict(zip(_AUTHORS, rest, strict=False))
    by_author = dict(zip(product(_QUANTITIES, _AUTHORS), rest[len(_AUTHORS) :], strict=True))
    return {
        "loss": loss / total_weight,
        "tokens": int(tokens),
        "responses": int(responses),
        "skipped": int(skipped),
        "acceptance_rate": _ratio(kept, kept + replaced),
        "replaced_share": _ratio(numbers["teacher"], tokens),
        "truncated_share": _ratio(truncated, responses),
        "wasted": int(wasted),
        "prompt_read": int(read),
        "prompt_reused": int(reused),
        **{f"{quantity}_{name}": _ratio(total, numbers[name]) for (quantity, name), total in by_author.items()},
    }


def _by_teacher(run: Run, rollout: Rollout) -> dict[str, dict[str, float | int | None]]:
    """Over all ranks."""
    rows, judged = dict(by_route(rollout.routes, len(rollout))), rollout.stats.by_teacher
    mine = {
        name: [len(rows.get(name, ())), sum(len(rollout.response_ids[row]) for row in rows.get(name, ()))]
        for name in run.pair.routes
    }
    counts = run.total([number for name in mine for number in (*mine[name], *judged.get(name, (0, 0)))]) if mine else []
    return {
        name: {"responses": int(responses), "tokens": int(tokens), "acceptance_rate": _ratio(kept, kept + replaced)}
        for name, responses, tokens, kept, replaced in zip(mine, *(counts[i::4] for i in range(4)), strict=True)
    }


def _usage(run: Run) -> Mapping[str, int]:
    used = [engine.usage for engine in run.pair.engines]
    return {name: sum(usage.get(name, 0) for usage in used) for usage in used for name in usage}


def _used(run: Run, before: Mapping[str, int]) -> dict[str, int]:
    """What a teacher on a server did since then, over all ranks."""
    now = _usage(run)
    totals = run.total([now[name] - before[name] for name in now]) if now else []
    return {name: int(total) for name, total in zip(now, totals, strict=True)}


def _engine(run: Run, step: int, rollout: Rollout) -> dict[str, float | int]:
    """How far an engine outside this process was from the student, where one wrote: the worst over the ranks."""
    if run.writers is None:
        return {}
    behind = step - min(rollout.versions or [step])
    return {
        "staleness": run.largest(behind),
        "probe_gap": run.largest(round(rollout.stats.probe_gap * 1e9)) / 1e9,
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None

"""The training loop: read it top to bottom."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from skd.check import Checked, check
from skd.config import RunConfig, config_digest, config_of, dump_config, load_config
from skd.errors import RemoteError
from skd.faults import point
from skd.files import write_atomic
from skd.hub import push
from skd.models import Pair, export_student
from skd.ranks.meeting import meet, require_same
from skd.ranks.peers import Limit, as_one
from skd.recorded import as_recorded, fingerprint, other_models, other_rows, with_seed
from skd.train.account import card_of
from skd.train.checkpoint import TrainState, disk_faults, load, name_best, read_state, require_space, save
from skd.train.directory import remove_stale
from skd.train.launched import as_launched
from skd.train.lock import RunLock
from skd.train.log import RunLog
from skd.train.origin import record_start
from skd.train.progress import Display
from skd.train.resume import ResumeMode, find_start
from skd.train.retry import persistently
from skd.train.run import Run
from skd.train.setup import PromptSource, prepare
from skd.train.signals import Interrupted, StopSignal, in_a_round
from skd.train.step import StepReport, train_step
from skd.train.tensors import (
    average_tensors,
    restore_average,
    student_tensors,
)
from skd.train.trace import Trace
from skd.train.trackers import Destination, Trackers
from skd.train.validate import pieces_of, validate
from skd.train.watch import Watch, weights_mark
from skd.types import Prompts
from skd.versions import versions

__all__ = ["Callback", "Measure", "TrainResult", "train"]

Measure = Callable[[Pair], Mapping[str, float]]
"""Scores of a pair's student by name."""
Callback = Callable[[Mapping[str, Any]], None]
"""Told of every row of metrics.jsonl: ``{"step", "loss", ...}`` of a step, ``{"step", "validation": {...}}``."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    run_dir: Path
    step: int
    """Optimiser steps taken, over all the times the run was resumed."""
    metrics: Path
    """metrics.jsonl: one JSON object per step, and one per validation."""
    student_dir: Path
    """The exported student, a plain transformers directory."""


def train(
    config: RunConfig | str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] | Mapping[str, object] | None = None,
    resume: ResumeMode = "auto",
    allow: Collection[str] = (),
    pair: Pair | None = None,
    prompts: PromptSource | None = None,
    validation: PromptSource | None = None,
    measure: Measure | None = None,
    callbacks: Sequence[Callback] = (),
    checked: Checked | None = None,
    profile: int = 0,
    display: bool = True,
) -> TrainResult:
    """Train a student by any method, from start to end or from where an earlier run stopped.

    Args:
        config: a RunConfig, the path of a YAML file, or a mapping of the same shape.
        overrides: changes to it by dotted key, such as ``{"train.max_steps": 100}``.
        resume: "auto" continues from the newest whole checkpoint in ``config.output`` or starts afresh, "must" refuses
            to start afresh, "never" refuses a directory that has checkpoints.
        allow: keys that may differ from those of the checkpoint that is resumed, such as "train.lr".
        pair: models already loaded, instead of those the configuration names. Its student is trained in place.
        prompts: the training set, instead of the configuration's: texts, or token ids with references.
        validation: the validation set, likewise.
        measure: scores of the student, taken and logged at every validation beside the loss.
        callbacks: called on the main process with every row of metrics.jsonl once it is written; what one raises ends
            the run, and the same call goes on from its last checkpoint.
        checked: what ``skd.check.check`` found for this configuration; it is called first where this is not given.
        profile: write a trace of this many steps to ``trace.json`` of the run directory.
        display: show progress and samples on standard error.

    Raises:
        ConfigError, DataError, ModelError, RemoteError: before the first step, for what cannot be used; processes that
            were started for different runs (SKD-P07).
        DataError: more than 5 % of the responses have no token to learn from (SKD-D11).
        CheckpointError: the run directory is in use, broken, or of another run.
        NumericsError: a loss or gradient is not finite; the update was not made.
        RemoteError: another process of the run was lost (SKD-P02), is stuck (SKD-P03) or was not found (SKD-P09); the
            teacher's server was lost; or the finished student could not be pushed, and is whole in the run's directory.
        ResourceError: the disk is full or fails; older checkpoints are whole.
        SystemExit: with 128 + n after signal n; a checkpoint was saved.
    """
    config = as_launched(as_recorded(_configured(config, overrides)))
    settings, run_dir = config.train, Path(config.output)
    accelerator = meet(cpu=pair is not None and pair.device.type == "cpu")
    checked = checked or check(config, rows=prompts is None, models=pair is None, allow=allow)
    checked.require()
    prompts = checked.train if prompts is None else prompts
    validation = checked.validation if validation is None else validation
    shown = Display(enabled=display and accelerator.is_main_process)
    for warning in checked.warnings:
        shown.say(warning)
    lock = RunLock(run_dir) if accelerator.is_main_process else nullcontext()
    limit = Limit(settings.rank_timeout_seconds, "train.rank_timeout_seconds")
    with as_one(run_dir, limit) as begin, lock, StopSignal() as stop:
        require_same({"config": dump_config(config), "versions": str(versions())})
        point("start")
        config = _with_seed(config, accelerator, shown)
        checkpoint = find_start(run_dir, config, resume, shown.say, allow)
        if checkpoint and isinstance(prompts, Prompts):
            _require_same_rows(checkpoint, prompts)  # before weights are read
        run = prepare(config, accelerator, pair=pair, prompts=prompts, validation=validation)
        if run.config != config:
            shown.say(f"measured, and recorded in config.yaml: {run.config.sampling.costs}")
        # With several processes one of them must not leave in the middle of a step: the others would wait for it.
        run = replace(run, check=stop.check if run.world_size == 1 else in_a_round)
        state = _restored(run, checkpoint) if checkpoint else _first_state(run)
        require_same({"training set": state.data_fingerprint, "checkpoint": str(state.step)})
        if state.step >= run.total_steps:
            return _finished(run, state, shown, new=False)
        _make_ready(run, state, shown)
        watch = Watch.over(run.policy, lambda: _mark(run))
        with (
            _opened(run, state, shown, callbacks, resumed=checkpoint is not None) as log,
            Trace(run_dir, profile if run.is_main else 0, shown.say) as trace,
            nullcontext() if run.writers is None else closing(run.writers),
        ):
            try:
                if state.validation_pending:
                    state = _validated(run, state, measure, log)
                while state.step < run.total_steps:
                    begin(state.step + 1)
                    report = train_step(run, state.step)
                    trace.stepped()
                    state = _advanced(run, state)
                    last = state.step == run.total_steps
                    _record(run, state.step, report, log, shown)
                    shown.warn(watch.step(state.step, report.metrics))
                    if state.validation_pending:
                        state = _validated(run, state, measure, log)
                    if state.best_step == state.step or _due(settings.save_every, state.step, last):
                        _save(run, state, log, shown)
                    # The largest over the ranks, since a signal may reach only one of them.
                    stopping = run.largest(stop.number or 0)
                    if stopping and not last:
                        raise Interrupted(stopping)
            except Interrupted as interrupted:
                _save(run, state, log, shown)
                shown.say(f"stopped by {interrupted} after step {state.step}; resume with the same command")
                raise SystemExit(128 + interrupted.number) from None
            except RemoteError:
                _save(run, state, log, shown)
                shown.say(f"a server was lost after step {state.step}, which is saved; resume with the same command")
                raise
        shown.warn(watch.end(state.step))
        return _finished(run, state, shown, new=True)


def _with_seed(config: RunConfig, accelerator: Accelerator, shown: Display) -> RunConfig:
    """A seed that is left open is drawn, by one process for all."""
    if config.train.seed is not None:
        return config
    drawn = torch.tensor([secrets.randbelow(2**32)], device=accelerator.device)
    seed = int(broadcast(drawn))
    shown.say(f"train.seed is null: drew {seed}, which is recorded in config.yaml")
    return with_seed(config, seed)


def _configured(
    config: RunConfig | str | Path | Mapping[str, Any], overrides: Sequence[str] | Mapping[str, object] | None
) -> RunConfig:
    if isinstance(config, str | Path):
        return load_config(config, overrides or ())
    return config_of(config, overrides or ())


@contextmanager
def _opened(
    run: Run, state: TrainState, shown: Display, callbacks: Sequence[Callback], *, resumed: bool
) -> Iterator[RunLog]:
    """The logs and the display of a run, continued from a state."""
    after_step = state.step if resumed else -1
    with (
        RunLog(
            run.run_dir,
            after_step=after_step,
            validated=not state.validation_pending,
            trackers=_trackers(run, after_step, shown) if run.is_main else None,
            say=shown.say,
            callbacks=callbacks,
            enabled=run.is_main,
        ) as log,
        shown.running(run.total_steps, state.step),
    ):
        yield log


def _trackers(run: Run, after_step: int, shown: Display) -> Trackers:
    destination = Destination(run.run_dir, run.config.model_dump(mode="json"), after_step)
    return Trackers(run.config.train.trackers, destination, shown.say)


def _validated(run: Run, state: TrainState, measure: Measure | None, log: RunLog) -> TrainState:
    """The state after a validation. The last one of a run is not interrupted: there is no later step to do it in."""
    last = state.step == run.total_steps
    asked = replace(run, check=None) if last and run.world_size == 1 else run
    with run.spread.visit():
        scores = validate(asked, state.step, log) | _measured(run, measure)
    log.validation(state.step, scores)
    state = replace(state, validation_pending=False)
    if state.step and _better(scores["loss"], state.best_loss):
        return replace(state, best_loss=scores["loss"], best_step=state.step)
    return state


def _mark(run: Run) -> int:
    with run.spread.read_by_main():
        return weights_mark(run.pair.student) if run.is_main else 0


def _measured(run: Run, measure: Measure | None) -> dict[str, float | int | None]:
    return {} if measure is None or not run.is_main else dict(measure(run.pair))


def _due(every: int | None, step: int, last: bool) -> bool:
    return last or (every is not None and step % every == 0)


def _better(loss: float | None, best: float | None) -> bool:
    return loss is not None and math.isfinite(loss) and (best is None or loss < best)


def _make_ready(run: Run, state: TrainState, shown: Display) -> None:
    """Tidy the run directory, make sure of room for two checkpoints, and write its config file and provenance."""
    if run.is_main:
        for name in remove_stale(run.run_dir):
            shown.say(f"removed {name}, left by an interrupted write")
        require_space(run.run_dir, student_tensors(run.pair.student), average_tensors(run.pair))
        write_atomic(run.run_dir / "config.yaml", dump_config(run.config))
        record_start(run.run_dir, state)


def _first_state(run: Run) -> TrainState:
    return TrainState(
        step=0,
        samples_trained=0,
        epoch=0.0,
        total_steps=run.total_steps,
        best_loss=None,
        best_step=None,
        config_digest=config_digest(run.config),
        data_fingerprint=fingerprint(run.prompts),
        provenance=run.pair.provenance,
        versions=versions(),
        validation_pending=run.validation is not None,
        loss_scale=run.scaler.state_dict(),
    )


def _restored(run: Run, checkpoint: Path) -> TrainState:
    """The state of a checkpoint, with its weights and optimizer state put into the run.

    Raises CheckpointError when data (SKD-D13) or models (SKD-M21) are not those the run was started with.
    """
    state, weights, moments = load(checkpoint)
    now = _first_state(run)
    if error := other_models(checkpoint, state.provenance, now.provenance):
        raise error
    _require_same_rows(checkpoint, run.prompts)
    run.spread.reloaded(weights, restore_average(run.pair, moments, checkpoint), checkpoint)
    if state.loss_scale:
        run.scaler.load_state_dict(state.loss_scale)
    if run.is_main:
        with disk_faults(run.run_dir, "the name of the best checkpoint"):
            name_best(run.run_dir, state)
    return replace(
        now,
        loss_scale=run.scaler.state_dict(),
        step=state.step,
        samples_trained=state.samples_trained,
        epoch=state.epoch,
        best_loss=state.best_loss,
        best_step=state.best_step,
        validation_pending=state.validation_pending and run.validation is not None,
    )


def _require_same_rows(checkpoint: Path, prompts: Prompts) -> None:
    if error := other_rows(checkpoint, read_state(checkpoint).data_fingerprint, prompts):
        raise error


def _advanced(run: Run, state: TrainState) -> TrainState:
    settings, step = run.config.train, state.step + 1
    trained = state.samples_trained + settings.batch_size
    pending = run.validation is not None and _due(settings.validate_every, step, step == run.total_steps)
    return replace(
        state,
        step=step,
        samples_trained=trained,
        epoch=trained / len(run.prompts),
        validation_pending=pending,
        loss_scale=run.scaler.state_dict(),
    )


def _record(run: Run, step: int, report: StepReport, log: RunLog, shown: Display) -> None:
    log.training(step, report.metrics, report.positions, report.teachers)
    log.trained(step, report.epochs, report.sample_ids)
    shown.step(step, report.metrics)
    every, rollout = run.config.train.samples_every, report.rollout
    if every is not None and step % every == 0 and len(rollout):
        pieces = pieces_of(run.pair.tokenizer, rollout.response_ids[0].tolist())
        authors = rollout.authors[0].tolist()
        prompt = run.pair.tokenizer.decode(rollout.prompt_ids[0].tolist(), skip_special_tokens=True)
        sample_id = rollout.sample_ids[0]
        log.sample(step, {"sample_id": sample_id, "prompt": prompt, "response": "".join(pieces), "authors": authors})
        shown.response(f"step {step}, row {sample_id}:", pieces, authors)


def _save(run: Run, state: TrainState, log: RunLog, shown: Display) -> None:
    log.sync()
    moments = run.spread.moments()
    with run.spread.read_by_main():
        if run.is_main:
            weights = student_tensors(run.pair.student)
            moments |= average_tensors(run.pair)
            config_yaml, keep = dump_config(run.config), run.config.train.keep
            persistently(lambda: save(run.run_dir, state, weights, moments, config_yaml, keep=keep), shown.say)
    run.accelerator.wait_for_everyone()


def _finished(run: Run, state: TrainState, shown: Display, *, new: bool) -> TrainResult:
    """Export the student, unless an earlier run already did, push it where that is asked for, and say so."""
    student_dir = run.run_dir / "student"
    point("export")
    with run.spread.read_by_main():
        if run.is_main and (new or not student_dir.is_dir()):
            with disk_faults(run.run_dir, "the student, which is trained and saved,"):
                export_student(run.pair, student_dir, card_of(run, state))
    run.accelerator.wait_for_everyone()
    shown.say(f"complete after {state.step} steps; the student is in {student_dir}")
    if run.is_main and (hub := run.config.hub) is not None:
        # Scores may have come since the export.
        write_atomic(student_dir / "README.md", card_of(run, state))
        write_atomic(run.run_dir / "config.yaml", dump_config(run.config))
        again = f"skd train {run.run_dir / 'config.yaml'}"
        url = push(student_dir, hub, f"{run.config.method}, {state.step} steps", again)
        shown.say(f"pushed to {url}")
    return TrainResult(run.run_dir, state.step, run.run_dir / "metrics.jsonl", student_dir)

"""``skd generate --config``: write the responses to a run's training rows once, to be trained from many times.

Each shard holds the responses to 64 prompts and is whole or absent. A response depends on the seed and the number of
its prompt only, and a shard on nothing before it: so a run that was killed goes on after its last whole shard and
leaves the bytes that it would have left anyway.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator
from torch import Tensor

from skd.config import MeasuredCosts, RunConfig
from skd.engines import writers_of
from skd.errors import CheckpointError, ConfigError, Problem, ResourceError
from skd.faults import point
from skd.files import canonical, fsync_directory, write_atomic, write_safetensors
from skd.models import Pair
from skd.models.vocabulary import vocabulary_digest
from skd.objectives import HiddenStates, fewer_ids, top_evidence
from skd.policies import RolloutKey, rolled_out
from skd.recorded import ASKING, ROUNDING, Difference, differences, fingerprint, with_seed, without
from skd.responses import INDEX_FILE, UNFINISHED_FILE, Index, ShardRecord, defect, read_index, shard_tensors
from skd.train.build import build_policy
from skd.train.costs import with_costs
from skd.train.lock import RunLock
from skd.train.progress import Display
from skd.train.setup import prepare_prompts
from skd.types import Prompts, Rollout, TopEvidence
from skd.versions import versions

__all__ = ["SHARD_PROMPTS", "generate_responses"]

SHARD_PROMPTS = 64
"""Prompts of a shard. Part of what fixes the bytes: another number would cut the responses differently."""


def generate_responses(
    config: RunConfig,
    directory: str | Path,
    top_k: int | None = None,
    *,
    pair: Pair | None = None,
    display: bool = True,
) -> Index:
    """Write the responses of the config's policy to all its training rows, as in epoch 0 at the start of a training.

    Args:
        config: policy, sampling, data, models and seed are used; objective and training settings are not.
        directory: where to; a directory that an earlier call left unfinished is continued.
        top_k: ids of the teacher to store at each token, with their log-probs; None stores no evidence.
        pair: models already loaded, instead of those the configuration names.
        display: show the progress on standard error.

    Raises:
        ConfigError: evidence is asked for and there is no teacher.
        CheckpointError: the directory is in use, or holds something else (SKD-K14, SKD-K15).
        ResourceError: the directory cannot be written to; shards already there are whole.
        DataError, ModelError, RemoteError, NumericsError: as in training.
    """
    directory = Path(directory)
    if top_k is not None and not (config.teacher if pair is None else pair.engines):
        found = "evidence is what the teacher thinks of each token, and teacher is missing"
        raise ConfigError(Problem("SKD-C10", "--evidence", found, "add teacher: PATH, or leave --evidence out"))
    shown, accelerator = Display(enabled=display), Accelerator(mixed_precision="no")
    with RunLock(directory):
        _require_ours(directory)
        config = _as_before(directory, config)
        _refuse_others(directory, {"settings": _settings(config)}, top_k)
        pair, prompts = prepare_prompts(config, accelerator, pair)
        config = with_costs(config, pair, prompts, accelerator, SHARD_PROMPTS)
        top_k = None if top_k is None else min(top_k, pair.vocab_size)
        index = _continued(directory, _new_index(config, pair, prompts, top_k), shown)
        return _write_shards(directory, config, pair, prompts, index, shown)


def _as_before(directory: Path, config: RunConfig) -> RunConfig:
    """With seed and measured costs of the responses that are already there, where they are left open; or a new seed."""
    earlier = _earlier(directory)
    if config.train.seed is None:
        drawn = secrets.randbelow(2**32) if earlier is None else earlier.origin["settings"]["seed"]
        config = with_seed(config, drawn)
    costs = config.sampling.costs
    if earlier is not None and isinstance(costs, MeasuredCosts) and not costs.microseconds:
        config = config.with_costs(earlier.origin.get(_COSTS, {}))
    return config


_COSTS = "microseconds"
"""In the origin of an index: costs that were measured."""


_IDLE = (
    *ASKING,
    "data.validation",
    "sampling.rollouts",
    *ROUNDING,
)


def _settings(config: RunConfig) -> dict[str, Any]:
    """What of a config the responses depend on."""
    values = config.model_dump(mode="json")
    settings = without({key: values[key] for key in ("teacher", "student", "policy", "data", "sampling")}, _IDLE)
    if config.sampling.rollouts is not None:
        settings["sampling"]["engine"] = config.sampling.rollouts.engine
    return {**settings, "seed": config.train.known_seed}


def _new_index(config: RunConfig, pair: Pair, prompts: Prompts, top_k: int | None) -> Index:
    settings = _settings(config)
    return Index(
        vocab_size=pair.vocab_size,
        vocabulary=vocabulary_digest(pair.tokenizer),
        top_k=top_k,
        origin={
            "settings": settings,
            "settings_digest": hashlib.sha256(canonical(settings)).hexdigest(),
            "prompts": fingerprint(prompts),
            "models": pair.provenance,
            "versions": versions(),
            _COSTS: getattr(config.sampling.costs, "microseconds", {}),
        },
    )


def _require_ours(directory: Path) -> None:
    """Raises CheckpointError (SKD-K15) for a directory of other files; removes what killed writes left."""
    names = {path.name for path in directory.iterdir()}
    for name in names:
        if name.startswith(".tmp-"):
            (directory / name).unlink()
    others = sorted(name for name in names if not name.startswith("."))
    if others and not names & {INDEX_FILE, UNFINISHED_FILE}:
        found = f"holds {others[0]} and no index of stored responses"
        raise CheckpointError(Problem("SKD-K15", str(directory), found, "name a new directory"))


def _earlier(directory: Path) -> Index | None:
    """The index that an earlier call left. Raises DataError for a broken one."""
    for name in (INDEX_FILE, UNFINISHED_FILE):
        if (directory / name).exists():
            return read_index(directory, name)
    return None


def _refuse_others(directory: Path, origin: Mapping[str, Any], top_k: int | None) -> None:
    """Raises CheckpointError (SKD-K14) when the directory is of responses that were made in another way."""
    earlier = _earlier(directory)
    if earlier is None:
        return
    saved = {"evidence": {"top_k": earlier.top_k}, **{key: earlier.origin[key] for key in origin}}
    top_k = None if top_k is None else min(top_k, earlier.vocab_size)
    found = [each for each in differences(saved, {"evidence": {"top_k": top_k}, **origin}) if not each.harmless]
    if found:
        listed = ", ".join(map(_told, found))
        remedy = "put it back, or name a new directory"
        raise CheckpointError(Problem("SKD-K14", str(directory), f"holds responses made with {listed}", remedy))


def _told(difference: Difference) -> str:
    if difference.key.endswith(".probe"):
        return f"{difference.key.removesuffix('.probe')}, which answered a fixed probe otherwise"
    return f"{difference.key} {difference.saved} (now {difference.current})"


def _continued(directory: Path, index: Index, shown: Display) -> Index:
    """With the shards that are already there and whole, up to the first that is not."""
    _refuse_others(directory, without(index.origin, [_COSTS]), index.top_k)
    earlier = _earlier(directory)
    whole: list[ShardRecord] = []
    for shard in () if earlier is None else earlier.shards:
        reason = defect(directory, shard)
        if reason is not None:
            shown.say(f"{shard.name} was refused: {reason}; it is written again")
            break
        whole.append(shard)
    if whole:
        shown.say(f"{len(whole)} shards in {directory} are whole: going on after them")
    # The probe of a server that answers again may differ by rounding.
    return replace(index, origin=index.origin if earlier is None else earlier.origin, shards=tuple(whole))


def _write_shards(
    directory: Path, config: RunConfig, pair: Pair, prompts: Prompts, index: Index, shown: Display
) -> Index:
    writers, seed = writers_of(config), config.train.known_seed
    policy = build_policy(config, evidence=index.top_k is not None, writers=writers)
    starts = range(0, len(prompts), SHARD_PROMPTS)
    unfinished = directory / UNFINISHED_FILE
    engines = nullcontext() if writers is None else closing(writers)
    with shown.running(len(starts), len(index.shards), unit="shard"), _disk_faults(directory), engines:
        if len(index.shards) == len(starts) and not unfinished.exists():
            return index
        write_atomic(unfinished, index.text())
        (directory / INDEX_FILE).unlink(missing_ok=True)
        for number in range(len(index.shards), len(starts)):
            chosen = prompts.select(range(starts[number], min(starts[number] + SHARD_PROMPTS, len(prompts))))
            rollout = rolled_out(policy, pair, chosen, RolloutKey(seed, [0] * len(chosen)))
            index = replace(index, shards=(*index.shards, _write(directory, number, pair, rollout, index.top_k)))
            write_atomic(unfinished, index.text())
            shown.step(number + 1, {"tokens": index.num_tokens, "acceptance_rate": rollout.acceptance_rate})
            point("generate.shard")
        os.replace(unfinished, directory / INDEX_FILE)
        fsync_directory(directory)
    return index


def _write(directory: Path, number: int, pair: Pair, rollout: Rollout, top_k: int | None) -> ShardRecord:
    name = ShardRecord.name_of(number)
    beside = directory / f".tmp-{name}-{os.getpid()}"
    evidence = None if top_k is None else _evidence(pair, rollout, top_k)
    record = write_safetensors(beside, shard_tensors(rollout, evidence))
    point("generate.rename")
    os.replace(beside, directory / name)
    fsync_directory(directory)
    return ShardRecord(name, len(rollout), rollout.num_tokens, record.bytes, record.sha256)


def _evidence(pair: Pair, rollout: Rollout, top_k: int) -> list[TopEvidence]:
    parts, evidence = [], cast("Sequence[Tensor | TopEvidence]", rollout.evidence or ())
    for row, (known, ids_L) in enumerate(zip(evidence, rollout.response_ids, strict=True)):
        if isinstance(known, TopEvidence):  # a server's
            parts.append(fewer_ids(known, top_k))
        else:
            head = pair.of(rollout.route([row])).teacher_head()
            parts.append(top_evidence(HiddenStates(known, head), ids_L.to(known.device), top_k))
    return parts


@contextmanager
def _disk_faults(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found = f"cannot be written to ({error.strerror}); the shards that are there are whole"
        remedy = "free space or make it writable, and run the same command again"
        raise ResourceError(Problem("SKD-K04", str(directory), found, remedy)) from error

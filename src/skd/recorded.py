"""What a run directory records of the run that is in it, and whether a config is still that run.

Needs no torch: ``skd check`` and the start of a run look here before anything is loaded.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from skd.config import MeasuredCosts, RunConfig
from skd.errors import CheckpointError, ConfigError, Problem
from skd.files import FileRecord, hash_file
from skd.manifest import CONFIG_FILE, MANIFEST_FILE, STATE_FILE, read_manifest

if TYPE_CHECKING:
    from skd.types import Prompts

__all__ = [
    "ASKING",
    "PROBE_TOLERANCE",
    "ROUNDING",
    "Difference",
    "Recorded",
    "as_recorded",
    "close_probes",
    "differences",
    "fingerprint",
    "other_models",
    "other_rows",
    "other_settings",
    "recorded",
    "recorded_in",
    "unknown_keys",
    "with_seed",
    "without",
]

_STEP_NAME = re.compile(r"step-(\d+)")

ASKING = ("teacher*.url", "teacher*.concurrency", "teacher*_seconds", "teacher*.tries")
"""Keys, as patterns, of where a served teacher is and how patiently it is asked, not of what it answers."""
ROUNDING = (
    "sampling.slots",
    "sampling.evidence",
    "sampling.prompt_cache_mb",
    "sampling.packed_mb",
    "sampling.costs*",
    "sampling.compile",
)
"""Keys that change sampling by rounding at most."""
_HARMLESS = (
    *ASKING,
    # Where things lie: what they are is compared by digest, commit or fingerprint.
    "output",
    "student.path",
    "student.revision",
    "teacher*.path",
    "teacher*.revision",
    "models.*.path",
    "data.train*",
    "data.on_bad_row",
    "data.on_empty",
    "data.on_leak",
    # What is shown and kept.
    "hub*",
    "train.samples_every",
    "train.trackers*",
    "train.keep",
    "train.save_every",
    "train.validate_every",
    "train.rank_timeout_seconds",
    # Rounding at most; what a user changes after running out of memory.
    "train.micro_batch_tokens",
    "train.gradient_checkpointing",
    "train.sharding",
    "train.gather",
    "train.offload",
    *ROUNDING,
    # Where an engine is and how patiently it is asked.
    "sampling.rollouts.python",
    "sampling.rollouts.transfer",
    "sampling.rollouts.gpu_memory",
    "sampling.rollouts.*_seconds",
)
"""Keys that may differ without being asked for, as patterns; responses and rows do not depend on them."""
_FIXED = ("train.batch_size", "train.seed", "student.lora*", "models*", "format")
"""Keys that cannot change at all: the position in the data, the noise and the weights depend on them."""
_MAY_GROW = frozenset({"train.max_steps", "train.epochs"})
PROBE_TOLERANCE = 0.1
"""Largest mean difference in nats between two probes of one model: bfloat16 and other batches move it by less."""


@dataclass(frozen=True)
class Recorded:
    """The run that a checkpoint is of."""

    checkpoint: Path
    config: Mapping[str, Any]
    """Every key with its value, as plain data."""
    models: Mapping[str, Any]
    """By part: path, and commit or digest."""
    data_fingerprint: str
    step: int
    total_steps: int


@dataclass(frozen=True)
class Difference:
    """A key whose value in the checkpoint is not the one of now."""

    key: str
    saved: Any
    current: Any

    @property
    def harmless(self) -> bool:
        if self.key in _MAY_GROW and self.saved is not None and self.current is not None:
            return bool(self.current >= self.saved)
        if self.key.endswith(".probe") and isinstance(self.saved, list) and isinstance(self.current, list):
            return close_probes(self.saved, self.current)
        return _matches(self.key, _HARMLESS)

    @property
    def fixed(self) -> bool:
        """No flag allows it."""
        return _matches(self.key, _FIXED)


def _matches(key: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def recorded(run_dir: Path) -> Recorded | None:
    """The run of the newest checkpoint whose small files are whole; None where there is none.

    Weights are not read, so that a checkpoint found here may still turn out to be broken.
    """
    directory = run_dir / "checkpoints"
    try:
        names = [path for path in directory.iterdir() if _STEP_NAME.fullmatch(path.name)]
    except (OSError, ValueError):
        return None
    for checkpoint in sorted(names, key=lambda path: -int(path.name.removeprefix("step-"))):
        try:
            return recorded_in(checkpoint)
        except (OSError, ValueError, KeyError):
            continue
    return None


def recorded_in(checkpoint: Path) -> Recorded:
    """The run of one checkpoint. Raises OSError or ValueError when its small files are not as they were written."""
    files = read_manifest((checkpoint / MANIFEST_FILE).read_bytes())
    state = json.loads(_whole(checkpoint / STATE_FILE, files))
    config = yaml.safe_load(_whole(checkpoint / CONFIG_FILE, files))
    return Recorded(
        checkpoint, config, state["provenance"], state["data_fingerprint"], state["step"], state["total_steps"]
    )


def _whole(path: Path, files: Mapping[str, FileRecord]) -> str:
    if hash_file(path) != files[path.name]:
        raise ValueError(f"{path.name} is not as it was written")
    return path.read_text(encoding="utf-8")


def as_recorded(config: RunConfig) -> RunConfig:
    """The config with what the run in its output has fixed, where it leaves that open.

    A seed that is null is the one that was drawn, costs are those that were measured, and a Hub model without revision
    is the commit that was loaded then: a branch may have moved since.
    """
    found = recorded(Path(config.output))
    if found is None:
        return config
    if config.train.seed is None:
        config = with_seed(config, found.config["train"]["seed"])
    costs = config.sampling.costs
    if isinstance(costs, MeasuredCosts) and not costs.microseconds:
        config = config.with_costs(found.config["sampling"].get("costs", {}).get("microseconds", {}))
    for key, model in config.models.items():
        saved = found.models.get(key) or {}
        if model.revision is None and saved.get("path") == model.path and saved.get("revision"):
            config = config.with_model(key, model.model_copy(update={"revision": saved["revision"]}))
    return config


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The config with this ``train.seed``."""
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """The keys in which two nested mappings differ, joined by dots, in alphabetical order."""
    before, now = _flat(saved), _flat(current)
    return [
        Difference(key, before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def without(values: Mapping[str, Any], patterns: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Nested mappings without the keys, joined by dots, that match one of the patterns."""
    return {
        key: without(value, patterns, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not _matches(f"{prefix}{key}", patterns)
    }


def close_probes(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two probes of a server, log-probs of fixed tokens, may be of one model."""
    if len(one) != len(other):
        return False
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) <= PROBE_TOLERANCE * len(one)


def other_settings(checkpoint: Path, found: Collection[Difference], allowed: Collection[str]) -> CheckpointError | None:
    """The error (SKD-C15) with a table of the differences that are neither harmless nor allowed by name."""
    refused = [each for each in found if not each.harmless and (each.fixed or each.key not in allowed)]
    if not refused:
        return None
    rows = [("key", "checkpoint", "now"), *((row.key, str(row.saved), str(row.current)) for row in refused)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = "\n".join(f"  {key:<{widths[0]}}  {saved:<{widths[1]}}  {now}" for key, saved, now in rows)
    flags = " ".join(f"--allow {each.key}" for each in refused if not each.fixed)
    fixed = ", ".join(each.key for each in refused if each.fixed)
    remedy = "put the settings back, or choose another output for a new run"
    if flags:
        remedy += f", or resume all the same with {flags}"
    if fixed:
        remedy += f" ({fixed} cannot change within a run)"
    text = f"the checkpoint is of a run with other settings:\n{table}\n"
    return CheckpointError(Problem("SKD-C15", str(checkpoint), text, remedy))


def unknown_keys(allowed: Collection[str], *configs: Mapping[str, Any]) -> list[ConfigError]:
    """The error (SKD-C05) for keys that no config has, so that a flag with a typing mistake is not silent."""
    known = sorted({key for config in configs for key in _flat(config)})
    near = {key: difflib.get_close_matches(key, known, n=1, cutoff=0.0) for key in allowed if key not in known}
    problems = [
        Problem("SKD-C05", f"--allow {key}", "is no key of a config", f"did you mean {names[0]}?")
        for key, names in near.items()
    ]
    return [ConfigError(problems)] if problems else []


def other_models(checkpoint: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> CheckpointError | None:
    """The error (SKD-M21) for models whose files or commits are not those that the run was started with."""
    refused = [each for each in differences({"models": saved}, {"models": current}) if not each.harmless]
    if not refused:
        return None
    listed = "; ".join(_told(each) for each in refused)
    remedy = "put the models back, name the revision that was recorded, or choose another output for a new run"
    found = f"the models are not those the run was started with: {listed}"
    return CheckpointError(Problem("SKD-M21", str(checkpoint), found, remedy))


def _told(difference: Difference) -> str:
    name = difference.key.removeprefix("models.")
    if name.endswith(".probe"):
        return f"{name.removesuffix('.probe')} answers a fixed probe otherwise"
    return f"{name} was {difference.saved} and is {difference.current}"


def other_rows(checkpoint: Path, saved: str, prompts: Prompts) -> CheckpointError | None:
    """The error (SKD-D13) for training rows that are not those that the run was started with."""
    if saved == fingerprint(prompts):
        return None
    found = "the training rows are not those the run was started with"
    return CheckpointError(Problem("SKD-D13", str(checkpoint), found, "put them back, or choose another output"))


def fingerprint(prompts: Prompts) -> str:
    """SHA-256 over the token ids of a training set and its references: tells whether the data are still the same."""
    digest = hashlib.sha256()
    for number, ids in enumerate(prompts.ids):
        reference = None if prompts.references is None else list(prompts.references[number])
        digest.update(repr((prompts.sample_ids[number], list(ids), reference)).encode())
        if prompts.teacher_ids is not None:
            digest.update(repr(list(prompts.teacher_ids[number])).encode())
        if prompts.reference_masks is not None:
            digest.update(bytes(prompts.reference_masks[number]))
        if prompts.routes is not None:
            digest.update(repr(prompts.routes[number]).encode())
    return digest.hexdigest()

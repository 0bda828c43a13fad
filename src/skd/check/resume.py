"""The run that is already in the output directory: whether the config is still that run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from skd.check.report import Part
from skd.config import RunConfig, resolve_model_path
from skd.files import directory_digest
from skd.model_files import ModelFiles
from skd.recorded import differences, other_models, other_rows, other_settings, recorded, unknown_keys

if TYPE_CHECKING:
    from skd.types import Prompts

__all__ = ["check_resume"]


def check_resume(
    part: Part, config: RunConfig, prompts: Prompts | None, files: Mapping[str, ModelFiles], allowed: Collection[str]
) -> bool:
    """Other settings than the newest checkpoint has (SKD-C15), other training rows (SKD-D13), or models that are not
    those of then, by commit or digest (SKD-M21). False without a checkpoint.

    Keys that are ``allowed`` may differ. The checkpoint's weights are not read.
    """
    found, current = recorded(Path(config.output)), config.model_dump(mode="json")
    part.errors += unknown_keys(allowed, current, {} if found is None else found.config)
    if found is None:
        return bool(part.errors)
    part.facts.append(f"{found.checkpoint.name} of {found.total_steps:,} steps is there")
    names = [name for name in files if name in found.models]
    now = {name: _identity(config.models[name].path, files[name].directory) for name in names}
    then = {name: {key: found.models[name].get(key) for key in now[name]} for name in names}
    errors = [
        other_settings(found.checkpoint, differences(found.config, current), allowed),
        other_models(found.checkpoint, then, now),
        None if prompts is None else other_rows(found.checkpoint, found.data_fingerprint, prompts),
    ]
    part.errors += [error for error in errors if error is not None]
    return True


def _identity(path: str, directory: Path) -> Mapping[str, str]:
    """As ``skd.models.load.provenance`` records it; a snapshot of the Hub is named by its commit."""
    if Path(resolve_model_path(path)).is_dir():
        return {"digest": directory_digest(directory)}
    return {"revision": directory.name}

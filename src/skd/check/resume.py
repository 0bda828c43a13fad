"""The run that is already in the output directory: whether the config is still that run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skd.check.report import Part
from skd.config import RunConfig
from skd.recorded import differences, other_models, other_rows, other_settings, recorded, unknown_keys

if TYPE_CHECKING:
    from skd.types import Prompts

__all__ = ["check_resume"]


def check_resume(
    part: Part, config: RunConfig, prompts: Prompts | None, commits: Mapping[str, str], allowed: Collection[str]
) -> bool:
    """Other settings than the newest checkpoint has (SKD-C15), other training rows (SKD-D13), or other commits of Hub
    models (SKD-M21). False without a checkpoint.

    Keys that are ``allowed`` may differ. The checkpoint's weights are not read.
    """
    found, current = recorded(Path(config.output)), config.model_dump(mode="json")
    part.errors += unknown_keys(allowed, current, {} if found is None else found.config)
    if found is None:
        return bool(part.errors)
    part.facts.append(f"{found.checkpoint.name} of {found.total_steps:,} steps is there")
    errors = [
        other_settings(found.checkpoint, differences(found.config, current), allowed),
        other_models(found.checkpoint, _commits(found.models, commits), _commits(commits, found.models)),
        None if prompts is None else other_rows(found.checkpoint, found.data_fingerprint, prompts),
    ]
    part.errors += [error for error in errors if error is not None]
    return True


def _commits(models: Mapping[str, Any], others: Mapping[str, Any]) -> Mapping[str, Any]:
    """The commit of each model that both have."""
    both = {part: models[part] for part in models if part in others}
    return {part: {"revision": one if isinstance(one, str) else one.get("revision")} for part, one in both.items()}

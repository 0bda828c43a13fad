"""Training. The module can be called, so that ``skd.train(...)`` works whether or not a part of it was imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skd.config import RunConfig

__all__ = ["train"]


def train(
    config: RunConfig | str | Path,
    overrides: Mapping[str, object] | Sequence[str] = (),
    *,
    resume: str = "auto",
) -> Any:
    """Train a student as ``config`` says.

    Args:
        config: a config, or the path of a YAML file.
        overrides: changes to the file, such as ``{"train.max_steps": 100}``; only with a path.
        resume: what to do with a run in the output directory: ``auto`` continues it, ``never`` refuses it, ``must``
            refuses to start a new one.

    Raises:
        ConfigError: the file or an override is wrong, or overrides came with a config that is complete already.
    """
    from skd.config import RunConfig, load_config
    from skd.errors import ConfigError, Problem
    from skd.train.loop import train as run

    if not isinstance(config, RunConfig):
        return run(load_config(config, overrides), resume=resume, config_path=config)
    if overrides:
        found = "overrides were given with a RunConfig"
        raise ConfigError(Problem("SKD-C10", "", found, "give the path of a file, or build the RunConfig with them"))
    return run(config, resume=resume, config_path=None)


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

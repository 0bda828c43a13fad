"""What the file of ``accelerate launch`` asks for, in our terms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from skd.config import RunConfig, config_of
from skd.errors import ConfigError, Problem

__all__ = ["as_launched"]

_USES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
_OFFLOAD = [f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE" for what in ("OPTIMIZER", "PARAM")]


def as_launched(config: RunConfig) -> RunConfig:
    """The config with the sharding that the launch file asks for; a sharding of its own goes before that.

    Raises ConfigError for what there is not (SKD-P09: ZeRO-1, a disk to offload to, FSDP with offload) and for what
    does not go with shards.
    """
    asked = _asked_by_launcher()
    if not asked or config.train.sharding != "none":
        return config
    return config_of(config, {f"train.{key}": value for key, value in asked.items()})


@cache
def _asked_by_launcher() -> Mapping[str, object]:
    """Keys of ``train``. accelerate's marks are taken out of the environment: transformers would leave weights out, and
    accelerate wrap the models, which skd cuts itself."""
    uses = [name for name in _USES if os.environ.pop(name, "false").lower() == "true"]
    asked: dict[str, object] = {}
    if "ACCELERATE_USE_FSDP" in uses:
        asked = {"sharding": "fsdp2"}
        _require("fsdp_offload_params", os.environ.get("FSDP_OFFLOAD_PARAMS", "false"), {"false"})
    if "ACCELERATE_USE_DEEPSPEED" in uses:
        stage, devices = (
            os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "none"),
            {os.environ.get(name, "none") for name in _OFFLOAD},
        )
        asked = {"sharding": f"zero{stage}", "offload": "cpu" in devices}
        _require("zero_stage", stage, {"2", "3"})
        for device in devices:
            _require("offload_*_device", device, {"none", "cpu"})
    return MappingProxyType(asked)


def _require(key: str, value: str, known: set[str]) -> None:
    if value not in known:
        remedy = f"write {' or '.join(sorted(known))} there, or launch without it and write train.sharding"
        raise ConfigError(Problem("SKD-P09", "the file of accelerate launch", f"has {key}: {value}", remedy))

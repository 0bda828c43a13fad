"""Speculative Knowledge Distillation: distil large language models into small ones by interleaved sampling.

The public names are loaded when they are first used, so that importing the package is quick and does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skd.config import RunConfig, load_config
    from skd.engines import VllmServer
    from skd.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        ModelError,
        NumericsError,
        Problem,
        RemoteError,
        ResourceError,
        SkdError,
    )
    from skd.models import AdapterOff, CurrentStudent, MovingAverage, Pair, load_pair
    from skd.objectives import (
        JSD,
        NLL,
        ByAuthor,
        ForwardKL,
        Objective,
        PerAuthor,
        PolicyGradient,
        ReverseKL,
        SampledReverseKL,
        SkewKL,
        SkewReverseKL,
        Taid,
        TeacherTopK,
        TotalVariation,
        Veto,
    )
    from skd.policies import DataSet, Interleaved, Mixture, Policy, Sampling, Staged, Student, Teacher
    from skd.sampling import (
        AcceptAll,
        AcceptNone,
        Interpolated,
        MinProb,
        PromptCache,
        SwitchOnce,
        TopK,
        TopP,
        Warp,
        interleave,
    )
    from skd.schedule import Schedule
    from skd.train import train
    from skd.types import Prompts, Rollout

__version__ = "0.1.0"

__all__ = [
    "JSD",
    "NLL",
    "AcceptAll",
    "AcceptNone",
    "AdapterOff",
    "ByAuthor",
    "CheckpointError",
    "ConfigError",
    "CurrentStudent",
    "DataError",
    "DataSet",
    "ForwardKL",
    "Interleaved",
    "Interpolated",
    "MinProb",
    "Mixture",
    "ModelError",
    "MovingAverage",
    "NumericsError",
    "Objective",
    "Pair",
    "PerAuthor",
    "Policy",
    "PolicyGradient",
    "Problem",
    "PromptCache",
    "Prompts",
    "RemoteError",
    "ResourceError",
    "ReverseKL",
    "Rollout",
    "RunConfig",
    "SampledReverseKL",
    "Sampling",
    "Schedule",
    "SkdError",
    "SkewKL",
    "SkewReverseKL",
    "Staged",
    "Student",
    "SwitchOnce",
    "Taid",
    "Teacher",
    "TeacherTopK",
    "TopK",
    "TopP",
    "TotalVariation",
    "Veto",
    "VllmServer",
    "Warp",
    "__version__",
    "interleave",
    "load_config",
    "load_pair",
    "train",
]

_HOME = {
    "skd.config": ("RunConfig", "load_config"),
    "skd.errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "ModelError",
        "NumericsError",
        "Problem",
        "RemoteError",
        "ResourceError",
        "SkdError",
    ),
    "skd.engines": ("VllmServer",),
    "skd.models": ("AdapterOff", "CurrentStudent", "MovingAverage", "Pair", "load_pair"),
    "skd.objectives": (
        "JSD",
        "NLL",
        "ByAuthor",
        "ForwardKL",
        "Objective",
        "PerAuthor",
        "PolicyGradient",
        "ReverseKL",
        "SampledReverseKL",
        "SkewKL",
        "SkewReverseKL",
        "Taid",
        "TeacherTopK",
        "TotalVariation",
        "Veto",
    ),
    "skd.policies": ("DataSet", "Interleaved", "Mixture", "Policy", "Sampling", "Staged", "Student", "Teacher"),
    "skd.sampling": (
        "AcceptAll",
        "AcceptNone",
        "Interpolated",
        "MinProb",
        "PromptCache",
        "SwitchOnce",
        "TopK",
        "TopP",
        "Warp",
        "interleave",
    ),
    "skd.schedule": ("Schedule",),
    "skd.types": ("Prompts", "Rollout"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "train":
        # Importing any part of skd.train binds the module to this name, so the module itself is what can be called.
        return import_module("skd.train")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'skd' has no attribute {name!r}")
    value: object = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

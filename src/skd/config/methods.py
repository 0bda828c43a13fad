"""Methods by name: each is a bundle of one policy and one objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from skd.config.choices import (
    DataSetPolicy,
    InterleavedPolicy,
    ObjectiveConfig,
    PolicyConfig,
    StudentPolicy,
    TeacherPolicy,
)

__all__ = ["ALIASES", "METHODS", "Method", "MethodName"]

MethodName = Literal["sft", "seq_kd", "supervised_kd", "on_policy", "skd"]


@dataclass(frozen=True)
class Method:
    """What a method name stands for where the config says nothing else."""

    policy: PolicyConfig
    objective: ObjectiveConfig


METHODS: Mapping[str, Method] = {
    "sft": Method(DataSetPolicy(), ObjectiveConfig(kind="nll")),
    "seq_kd": Method(TeacherPolicy(), ObjectiveConfig(kind="nll")),
    "supervised_kd": Method(DataSetPolicy(), ObjectiveConfig(kind="forward_kl")),
    "on_policy": Method(StudentPolicy(), ObjectiveConfig(kind="forward_kl")),
    "skd": Method(InterleavedPolicy(), ObjectiveConfig(kind="forward_kl")),
}

ALIASES: Mapping[str, MethodName] = {
    "on-policy": "on_policy",
    "gkd": "on_policy",
    "seq-kd": "seq_kd",
    "supervised-kd": "supervised_kd",
}
"""Other spellings, among them those of the paper's code."""

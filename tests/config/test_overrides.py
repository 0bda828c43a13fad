"""Changes on the command line and from Python: what they reach, and what a mistake in one gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skd.config import METHODS, RunConfig, config_of, load_config
from skd.config.models import TeacherModel
from skd.config.objective import ForwardKLLoss, JSDLoss, ObjectiveConfig, VetoTarget
from skd.config.policy import (
    AcceptNoneGate,
    DataSetPolicy,
    InterleavedPolicy,
    MixturePolicy,
    PartConfig,
    PolicyConfig,
    StudentPolicy,
    TopKGate,
    TopPGate,
)
from skd.config.sources import FileSource
from skd.errors import ConfigError
from tests.config.conftest import BASE

Load = Callable[..., RunConfig]
Problems = Callable[..., list[str]]


def test_overrides_apply_in_order_and_reach_into_short_forms(load: Load) -> None:
    config = load(
        BASE,
        "train.lr=2e-5",
        "train.max_steps=3",
        "train.max_steps=4",
        "teacher.dtype=bfloat16",
        "data.train.limit=7",
        "policy={kind: interleaved, gate: {kind: accept_none}}",
        "sampling.stop_strings=[\"\\n\", 'a=b']",
        "data.validation=other.json",
        "output=runs/a b",
    )
    assert (config.train.lr, config.train.max_steps) == (2e-5, 4)
    assert config.teacher == TeacherModel(path="t", dtype="bfloat16")
    assert config.data.train == (FileSource(path="rows.json", limit=7),)
    assert config.data.validation == (FileSource(path="other.json"),)
    assert config.policy == InterleavedPolicy(gate=AcceptNoneGate())
    assert config.sampling.stop_strings == ("\n", "a=b")
    assert config.output == "runs/a b"


@pytest.mark.parametrize(
    ("text", "overrides", "policy"),
    [
        ("", ["policy.gate.k=3"], InterleavedPolicy(gate=TopKGate(k=3))),
        ("", ["policy.block=9", "policy.gate.k=3"], InterleavedPolicy(gate=TopKGate(k=3), block=9)),
        ("", ["policy.gate.kind=accept_none"], InterleavedPolicy(gate=AcceptNoneGate())),
        ("", ["policy.kind=student"], StudentPolicy()),
        ("policy: {kind: interleaved, gate: {kind: top_k, k: 3}}\n", ["policy.kind=student"], StudentPolicy()),
        ("policy: {gate: {k: 3}}\n", ["policy.kind=student"], StudentPolicy()),
        ("policy: {gate: {k: 3}}\n", ["policy.gate.kind=accept_none"], InterleavedPolicy(gate=AcceptNoneGate())),
        ("policy: student\n", ["policy=interleaved", "policy.block=3"], InterleavedPolicy(block=3)),
        ("policy: interleaved\n", ["policy.gate.k=3"], InterleavedPolicy(gate=TopKGate(k=3))),
        (
            "policy: {kind: interleaved, gate: {kind: top_k, k: 3}, block: 4}\n",
            ["policy.gate.kind=top_p", "policy.gate.p=0.9"],
            InterleavedPolicy(gate=TopPGate(p=0.9), block=4),
        ),
    ],
)
def test_a_change_inside_a_policy_starts_from_the_methods_and_a_new_kind_from_nothing(
    text: str, overrides: list[str], policy: PolicyConfig, load: Load
) -> None:
    assert load(text + BASE, *overrides).policy == policy


@pytest.mark.parametrize(
    ("text", "overrides", "objective"),
    [
        ("", ["objective.temperature=2"], ObjectiveConfig(temperature=2.0)),
        ("", ["objective.loss.kind=jsd", "objective.loss.beta=0.1"], ObjectiveConfig(loss=JSDLoss(beta=0.1))),
        ("", ["objective.loss=jsd", "objective.loss.beta=0.1"], ObjectiveConfig(loss=JSDLoss(beta=0.1))),
        ("objective: {loss: jsd}\n", ["objective.loss.beta=0.1"], ObjectiveConfig(loss=JSDLoss(beta=0.1))),
        ("objective: {loss: {beta: 0.1, kind: jsd}}\n", ["objective.loss.kind=kl"], ObjectiveConfig()),
        ("method: veto\n", ["objective.target.beta=2"], ObjectiveConfig(target=VetoTarget(beta=2.0))),
        ("method: ca_opd\n", ["objective.teacher=null"], ObjectiveConfig(loss=ForwardKLLoss(), teacher=None)),
    ],
)
def test_a_change_of_the_objective_starts_from_the_methods(
    text: str, overrides: list[str], objective: ObjectiveConfig, load: Load
) -> None:
    assert load(text + BASE, *overrides).objective == objective


def halves(share: float, other: PolicyConfig) -> MixturePolicy:
    """ImitKD's mixture with this share for the student."""
    return MixturePolicy(parts=(PartConfig(weight=share, policy=StudentPolicy()), PartConfig(weight=0.5, policy=other)))


@pytest.mark.parametrize(
    ("text", "overrides", "policy"),
    [
        ("method: imitkd\n", ["policy.parts.0.weight=0.3"], halves(0.3, DataSetPolicy())),
        ("", ["method=imitkd", "policy.parts.0.weight=0.3"], halves(0.3, DataSetPolicy())),
        ("", ["policy.parts.0.weight=0.3", "method=imitkd"], halves(0.3, DataSetPolicy())),
        ("", ["method=mixed", "policy.parts.0.weight=0.3"], halves(0.3, DataSetPolicy())),
        ("method: imitkd\npolicy: mixture\n", ["policy.parts.0.weight=0.3"], halves(0.3, DataSetPolicy())),
        ("method: imitkd\npolicy: {kind: mixture}\n", ["policy.parts.0.weight=0.3"], halves(0.3, DataSetPolicy())),
        ("method: imitkd\n", ["policy.parts.1.policy=interleaved"], halves(0.5, InterleavedPolicy())),
        (
            "method: imitkd\n",
            ["policy.parts.1.policy=interleaved", "policy.parts.1.policy.gate=top_k", "policy.parts.1.policy.gate.k=3"],
            halves(0.5, InterleavedPolicy(gate=TopKGate(k=3))),
        ),
        ("method: imitkd\n", ["policy.parts.0.weight=0.3", "policy=student"], StudentPolicy()),
    ],
)
def test_an_override_reaches_into_a_list_that_only_the_method_has(
    text: str, overrides: list[str], policy: PolicyConfig, load: Load
) -> None:
    assert load(text + BASE, *overrides).policy == policy


def test_an_override_from_python_reaches_into_a_list_that_only_the_method_has() -> None:
    values = {"method": "imitkd", "teacher": "t", "student": "s", "data": {"train": "x"}}
    changed = config_of(values, {"policy.parts.0.weight": {"start": 1.0, "end": 0.0}})
    assert changed.policy.parts[0].weight.end == 0.0  # type: ignore[union-attr]
    assert config_of(values).policy == halves(0.5, DataSetPolicy()), "the method itself was changed"
    assert METHODS["imitkd"].policy["parts"][0]["weight"] == 0.5


def test_the_items_of_a_methods_list_are_named_when_one_is_missed(problems: Problems) -> None:
    assert problems("method: imitkd\n" + BASE, "policy.parts.2.weight=1", "policy.parts.x.weight=1") == [
        f"error[SKD-C05] --override policy.parts.{key}.weight: policy.parts is a list of 2, whose items are "
        "policy.parts.0 and so on; override policy.parts as a whole"
        for key in "2x"
    ]


def test_overrides_from_python_are_values(load: Load, tmp_path: Path) -> None:
    load(BASE)
    config = load_config("train.yaml", {"train.max_steps": 100, "output": "no"})
    assert (config.train.max_steps, config.output) == (100, "no")
    with pytest.raises(ConfigError, match=r"--override train\.max_steps: train\.max_steps is 1\.5, expected a whole"):
        load_config("train.yaml", {"train.max_steps": 1.5})


def test_an_override_of_null_takes_the_teacher_away(load: Load) -> None:
    assert load(BASE, "method=sft", "teacher=null").teacher is None


OVERRIDES = [
    ("train.lr", 'C05] --override: "train.lr" has no value; write section.key=value'),
    ("=3", "a key is empty; write section.key=value"),
    ("train..lr=3", "C05] --override train..lr: a key is empty; write section.key=value"),
    ("train.lr=", "C06] --override train.lr: train.lr is empty (null), expected a number; write for example train.lr"),
    ("train.lr=fast", 'C03] --override train.lr: train.lr is the text "fast", expected a number'),
    ("train.slots=3", "C05] --override train.slots: train.slots is an unknown key; did you mean sampling.slots?"),
    ("train.lr.x=3", "C06] --override train.lr.x: train.lr is a mapping, expected a number"),
    ("train.lr=[1", "C02] --override train.lr:3: is not valid YAML"),
    ("output=sk-abcdef", "C11] --override output: the value of output looks like a secret"),
    ("method=skdd", 'C05] --override method: method is the text "skdd", expected one of sft'),
    (
        "policy.gate.k.start=3",
        "C17] --override policy.gate.k.start: policy.gate.k.end is missing; add policy.gate.k.end (Value at the last",
    ),
    (
        "policy.gate.kind=[top_k]",
        "C05] --override policy.gate.kind: policy.gate.kind is a list, expected one of top_k, top_p, min_prob",
    ),
    (
        "policy.gate.floor=0.5",
        "C05] --override policy.gate.floor: policy.gate.floor is an unknown key of kind top_k; "
        "remove it, or write policy.gate.kind: min_prob",
    ),
    (
        "policy.parts.0.weight=0.5",
        "C05] --override policy.parts.0.weight: policy.parts is an unknown key of kind interleaved; "
        "remove it, or write policy.kind: mixture or staged",
    ),
    (
        "sampling.stop_strings.0.x=1",
        "C06] --override sampling.stop_strings.0.x: sampling.stop_strings is a mapping, expected a list",
    ),
    ("output=&a b", "C09] --override output: a YAML anchor or alias (& or *) is used"),
]


@pytest.mark.parametrize(("override", "message"), OVERRIDES)
def test_overrides_are_named(override: str, message: str, problems: Problems) -> None:
    found = problems(BASE, override)
    assert len(found) == 1, found
    assert message in found[0]


def test_an_override_of_a_value_with_no_keys_is_refused(problems: Problems) -> None:
    assert problems(f"train: 5\n{BASE}", "train.lr=1")[0] == (
        "error[SKD-C05] --override train.lr: train has no keys of its own; override train as a whole"
    )


def test_an_override_reaches_into_a_list_that_is_there(problems: Problems, load: Callable[..., Any]) -> None:
    text = f"train: {{betas: [0.9, 0.9]}}\n{BASE}"
    assert load(text, "train.betas.1=0.5").train.betas == (0.9, 0.5)
    assert problems(text, "train.betas.1=2")[0].startswith(
        "error[SKD-C07] --override train.betas.1: train.betas.1 is 2, expected a number of at least 0 and below 1; "
    )
    assert problems(text, "train.betas.2=0.5", "train.betas.x=0.5") == [
        f"error[SKD-C05] --override train.betas.{key}: train.betas is a list of 2, whose items are train.betas.0 and "
        "so on; override train.betas as a whole"
        for key in "2x"
    ]

"""What each method stands for, how a config's own words go over it, and that it survives being written and read."""

from collections.abc import Callable
from typing import Any

import pytest

from skd.config import ALIASES, METHODS, RunConfig, config_digest, config_of, dump_config
from skd.config.methods import MethodName, merged, with_method
from skd.config.numbers import ScheduleConfig
from skd.config.objective import (
    ByAuthorWeights,
    ForwardKLLoss,
    JSDLoss,
    NLLLoss,
    ObjectiveConfig,
    PolicyGradientLoss,
    SkewKLLoss,
    TaidTarget,
    TeacherTopKWeights,
    TotalVariationLoss,
    VetoTarget,
)
from skd.config.policy import (
    AcceptAllGate,
    DataSetPolicy,
    InterleavedPolicy,
    InterpolatedGate,
    MinProbGate,
    MixturePolicy,
    PartConfig,
    PolicyConfig,
    StageConfig,
    StagedPolicy,
    StudentPolicy,
    SwitchOnceGate,
    TeacherPolicy,
    TopKGate,
)
from skd.config.schema import SamplingConfig, StudentWarpConfig, TeacherWarpConfig
from tests.config.conftest import BASE

Load = Callable[..., RunConfig]

FALLING_G = ScheduleConfig(start=0.1, end=0.0)
FALLING_K = ScheduleConfig(start=25, end=1, over="response", tokens=128)
FALLING_FLOOR = ScheduleConfig(start=0.5, end=0.25, shape="cosine", scale="log")
NLL, FORWARD_KL = ObjectiveConfig(loss=NLLLoss()), ObjectiveConfig(loss=ForwardKLLoss())
PAPER = SamplingConfig(
    student=StudentWarpConfig(temperature=0.5, top_p=0.5), teacher=TeacherWarpConfig(temperature=0.2, top_p=1.0)
)
RAW_STUDENT = SamplingConfig(student=StudentWarpConfig(temperature=1.0, top_p=1.0))
RAW_BOTH = SamplingConfig(
    student=StudentWarpConfig(temperature=1.0, top_p=1.0), teacher=TeacherWarpConfig(temperature=1.0)
)
ARGMAX_TEACHER = SamplingConfig(teacher=TeacherWarpConfig(temperature=0.0))


def halves(first: PolicyConfig, second: PolicyConfig) -> MixturePolicy:
    return MixturePolicy(parts=(PartConfig(weight=0.5, policy=first), PartConfig(weight=0.5, policy=second)))


TWO_STAGES = StagedPolicy(
    parts=(StageConfig(share=0.5, policy=DataSetPolicy()), StageConfig(share=0.5, policy=StudentPolicy()))
)
IPD_LOSS = ObjectiveConfig(loss=PolicyGradientLoss(clip=0.2), teacher=NLLLoss())

STANDS_FOR: dict[str, tuple[PolicyConfig, ObjectiveConfig, SamplingConfig]] = {
    "sft": (DataSetPolicy(), NLL, PAPER),
    "seq_kd": (TeacherPolicy(), NLL, PAPER),
    "supervised_kd": (DataSetPolicy(), FORWARD_KL, PAPER),
    "on_policy": (StudentPolicy(), FORWARD_KL, PAPER),
    "imitkd": (halves(StudentPolicy(), DataSetPolicy()), FORWARD_KL, PAPER),
    "two_stage": (TWO_STAGES, FORWARD_KL, PAPER),
    "skd": (InterleavedPolicy(gate=TopKGate(k=25)), FORWARD_KL, PAPER),
    "skd_adaptive_k": (InterleavedPolicy(gate=TopKGate(k=FALLING_K)), FORWARD_KL, PAPER),
    "mixed_skd": (halves(InterleavedPolicy(gate=TopKGate(k=25)), DataSetPolicy()), FORWARD_KL, PAPER),
    "ipd": (InterleavedPolicy(gate=InterpolatedGate(g=FALLING_G)), IPD_LOSS, RAW_BOTH),
    "ca_opd": (
        InterleavedPolicy(gate=MinProbGate(floor=FALLING_FLOOR)),
        ObjectiveConfig(loss=ForwardKLLoss(), teacher=NLLLoss()),
        ARGMAX_TEACHER,
    ),
    "adaswitch": (InterleavedPolicy(gate=SwitchOnceGate(factor=3.0)), FORWARD_KL, PAPER),
    "selectkd": (StudentPolicy(), ObjectiveConfig(weights=TeacherTopKWeights(k=5, rejected=0.0)), PAPER),
    "veto": (
        StudentPolicy(),
        ObjectiveConfig(target=VetoTarget(beta=ScheduleConfig(start=1.0, end=0.0))),
        PAPER,
    ),
    "taid": (DataSetPolicy(), ObjectiveConfig(target=TaidTarget(t=ScheduleConfig(start=0.4, end=1.0))), PAPER),
    "distillm": (StudentPolicy(), ObjectiveConfig(loss=SkewKLLoss(alpha=0.1)), PAPER),
    "opd": (StudentPolicy(), ObjectiveConfig(loss=PolicyGradientLoss(clip=None)), RAW_STUDENT),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_stands_for_its_sections(name: str, load: Load) -> None:
    config = load(f"method: {name}\n{BASE}")
    assert (config.method, config.policy, config.objective, config.sampling) == (name, *STANDS_FOR[name])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    assert METHODS[name].title
    assert bool(METHODS[name].paper) == (name != "sft")


@pytest.mark.parametrize("docs", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_methods_config_is_read_back_equal(name: str, docs: bool, load: Load) -> None:
    config = load(f"method: {name}\n{BASE}")
    text = dump_config(config, docs=docs)
    again = load(text)
    assert again == config
    assert config_digest(again) == config_digest(config)
    assert dump_config(again, docs=docs) == text
    assert config_of(config) == config


@pytest.mark.parametrize("name", METHODS)
def test_printed_docs_say_what_each_key_of_a_method_means(name: str, load: Load) -> None:
    lines = dump_config(load(f"method: {name}\n{BASE}"), docs=True).splitlines()
    assert [line for line in lines if "  # " not in line] == []


@pytest.mark.parametrize("alias", ALIASES)
def test_another_spelling_is_the_method(alias: str, load: Load) -> None:
    config = load(f"method: {alias}\n{BASE}")
    assert config == load(f"method: {ALIASES[alias]}\n{BASE}")
    assert config.method == ALIASES[alias]


def test_the_papers_own_names_are_understood() -> None:
    names: dict[str, MethodName] = {
        "on-policy": "on_policy",
        "gkd": "on_policy",
        "mixed": "imitkd",
        "mixed_train": "two_stage",
        "seq-kd": "seq_kd",
        "supervised-kd": "supervised_kd",
    }
    assert {name: ALIASES[name] for name in names} == names
    assert not set(ALIASES) & set(METHODS)


OVER_THE_METHOD = [
    # (lines, section, value): keys left out are the method's
    ("policy: {block: 9}", "policy", InterleavedPolicy(gate=TopKGate(k=25), block=9)),
    ("policy: {gate: {k: 7}}", "policy", InterleavedPolicy(gate=TopKGate(k=7))),
    ("method: skd_adaptive_k\npolicy: {gate: {k: 7}}", "policy", InterleavedPolicy(gate=TopKGate(k=7))),
    (
        "method: skd_adaptive_k\npolicy: {gate: {k: {tokens: 64}}}",
        "policy",
        InterleavedPolicy(gate=TopKGate(k=ScheduleConfig(start=25, end=1, over="response", tokens=64))),
    ),
    (
        "method: ipd\nobjective: {temperature: 2}",
        "objective",
        ObjectiveConfig(loss=PolicyGradientLoss(clip=0.2), teacher=NLLLoss(), temperature=2.0),
    ),
    (
        "method: ipd\nsampling: {student: {top_p: 0.9}}",
        "sampling",
        SamplingConfig(
            student=StudentWarpConfig(temperature=1.0, top_p=0.9), teacher=TeacherWarpConfig(temperature=1.0)
        ),
    ),
    # null is a value of its own, where a key may be null
    (
        "method: ipd\nobjective: {loss: {clip: null}}",
        "objective",
        ObjectiveConfig(loss=PolicyGradientLoss(), teacher=NLLLoss()),
    ),
    ("method: ca_opd\nobjective: {teacher: null}", "objective", FORWARD_KL),
    # an empty section is the method's
    ("policy:", "policy", InterleavedPolicy(gate=TopKGate(k=25))),
    ("method: veto\nobjective: {}", "objective", STANDS_FOR["veto"][1]),
    # a section of another kind takes no defaults
    ("method: ipd\nobjective: {loss: {kind: jsd}}", "objective", ObjectiveConfig(loss=JSDLoss(), teacher=NLLLoss())),
    ("method: ipd\npolicy: {gate: {kind: interpolated}}", "policy", STANDS_FOR["ipd"][0]),
    ("method: ca_opd\npolicy: {gate: {kind: interpolated}}", "policy", InterleavedPolicy(gate=InterpolatedGate(g=0.1))),
    ("method: skd_adaptive_k\npolicy: {kind: student}", "policy", StudentPolicy()),
    ("method: on_policy\npolicy: {kind: interleaved}", "policy", InterleavedPolicy(gate=TopKGate(k=25))),
    # a list is taken whole
    (
        "method: imitkd\npolicy: {parts: [{weight: 1, policy: teacher}]}",
        "policy",
        MixturePolicy(parts=(PartConfig(weight=1.0, policy=TeacherPolicy()),)),
    ),
    # a plain name stands for a section with its defaults
    ("policy: student", "policy", StudentPolicy()),
    ("policy: interleaved", "policy", InterleavedPolicy(gate=TopKGate(k=25))),
    ("method: skd_adaptive_k\npolicy: {gate: top_k}", "policy", InterleavedPolicy(gate=TopKGate(k=FALLING_K))),
    ("policy: {gate: accept_all}", "policy", InterleavedPolicy(gate=AcceptAllGate())),
    ("objective: {loss: jsd}", "objective", ObjectiveConfig(loss=JSDLoss(beta=0.5))),
    ("objective: {weights: teacher_top_k}", "objective", ObjectiveConfig(weights=TeacherTopKWeights())),
    (
        "objective: {weights: {kind: by_author, data: 0}}",
        "objective",
        ObjectiveConfig(weights=ByAuthorWeights(data=0.0)),
    ),
    ("objective: {target: taid}", "objective", ObjectiveConfig(target=TaidTarget())),
    (
        "objective: {teacher: nll, student: tv}",
        "objective",
        ObjectiveConfig(teacher=NLLLoss(), student=TotalVariationLoss()),
    ),
    # other spellings of a kind
    ("method: sft\nobjective: {loss: kl}", "objective", FORWARD_KL),
    ("method: sft\nobjective: {loss: {kind: kl}}", "objective", FORWARD_KL),
    ("objective: {loss: tv}", "objective", ObjectiveConfig(loss=TotalVariationLoss())),
]


@pytest.mark.parametrize(("lines", "section", "value"), OVER_THE_METHOD, ids=[lines for lines, *_ in OVER_THE_METHOD])
def test_what_a_config_says_goes_over_its_method(lines: str, section: str, value: Any, load: Load) -> None:
    config = load(f"{lines}\n{BASE}")
    assert getattr(config, section) == value
    others = {"policy", "objective", "sampling"} - {section}
    plain = load(f"method: {config.method}\n{BASE}")
    assert {key: getattr(config, key) for key in others} == {key: getattr(plain, key) for key in others}


def test_an_unknown_method_adds_nothing() -> None:
    assert with_method({"method": "sdk", "output": "x"}) == {"method": "sdk", "output": "x"}
    assert with_method({"method": 3}) == {"method": 3}


def test_merging_leaves_both_sides_as_they_are() -> None:
    default, given = {"kind": "a", "inner": {"x": 1, "y": 2}}, {"inner": {"x": 3}}
    assert merged(default, given) == {"kind": "a", "inner": {"x": 3, "y": 2}}
    assert (default, given) == ({"kind": "a", "inner": {"x": 1, "y": 2}}, {"inner": {"x": 3}})


def test_numbers_change_from_start_to_end(load: Load) -> None:
    text = "{start: 0.9, end: 0.1, shape: cosine, over: response, tokens: 64, scale: log}"
    config = load(f"policy: {{gate: {{kind: min_prob, floor: {text}}}}}\n{BASE}")
    floor = ScheduleConfig(start=0.9, end=0.1, shape="cosine", over="response", tokens=64, scale="log")
    assert config.policy == InterleavedPolicy(gate=MinProbGate(floor=floor))


def test_policies_nest(load: Load) -> None:
    inner = "{kind: mixture, parts: [{weight: 1, policy: student}, {weight: 3, policy: {kind: interleaved, block: 2}}]}"
    stages = f"[{{share: 0.25, policy: data_set}}, {{share: 0.75, policy: {inner}}}]"
    config = load(f"policy: {{kind: staged, parts: {stages}}}\n{BASE}")
    mixture = MixturePolicy(
        parts=(
            PartConfig(weight=1.0, policy=StudentPolicy()),
            PartConfig(weight=3.0, policy=InterleavedPolicy(block=2)),
        )
    )
    assert config.policy == StagedPolicy(
        parts=(StageConfig(share=0.25, policy=DataSetPolicy()), StageConfig(share=0.75, policy=mixture))
    )
    assert load(dump_config(config)) == config

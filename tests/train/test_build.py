"""From a config to the values that do the work: the right class with the right numbers, for every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skd.config import METHODS, RunConfig, config_of
from skd.config.fields import Section
from skd.config.names import kinds
from skd.config.objective import ObjectiveConfig
from skd.config.policy import InterleavedPolicy
from skd.errors import ConfigError
from skd.objectives import (
    JSD,
    NLL,
    ByAuthor,
    ForwardKL,
    Objective,
    PerAuthor,
    Plain,
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
    Compiled,
    Gate,
    Interpolated,
    MinProb,
    PromptCache,
    SwitchOnce,
    TopK,
    TopP,
    Warp,
)
from skd.schedule import Schedule
from skd.train.build import build_gate, build_objective, build_policy

FALLING = {"start": 0.5, "end": 0.25, "shape": "cosine", "scale": "log"}
ALONG = {"start": 25, "end": 1, "over": "response", "tokens": 128}


def config(**sections: Any) -> RunConfig:
    return config_of({"teacher": "t", "student": "s", "data": {"train": "x"}, **sections})


def gate_of(gate: Any) -> Gate:
    policy = config(policy={"kind": "interleaved", "gate": gate}).policy
    assert isinstance(policy, InterleavedPolicy)
    return build_gate(policy.gate)


def objective_of(**objective: Any) -> Objective:
    return build_objective(config(objective=objective).objective)


def policy_of(policy: Any, **sampling: Any) -> Policy:
    return build_policy(config(policy=policy, sampling=sampling), evidence=True)


@pytest.mark.parametrize(("gather", "kept"), [("step", 4000), ("layer", 0)])
def test_layers_that_are_given_back_leave_no_packed_copy(gather: str, kept: int) -> None:
    policy = build_policy(config(train={"sharding": "fsdp2", "gather": gather}), evidence=True)
    assert policy.sampling.execution.packed_mb == kept  # type: ignore[attr-defined]


GATES = [
    ("top_k", TopK(k=25)),
    ({"kind": "top_k", "k": 3}, TopK(k=3)),
    ({"kind": "top_k", "k": ALONG}, TopK(k=Schedule(25.0, 1.0, over="response", tokens=128))),
    ({"kind": "top_p", "p": 0.9}, TopP(p=0.9)),
    ({"kind": "min_prob", "floor": 0.3}, MinProb(floor=0.3)),
    ({"kind": "min_prob", "floor": FALLING}, MinProb(floor=Schedule(0.5, 0.25, shape="cosine", scale="log"))),
    ("interpolated", Interpolated(g=0.1)),
    ({"kind": "interpolated", "g": {"start": 0.1, "end": 0}}, Interpolated(g=Schedule(0.1, 0.0))),
    ({"kind": "switch_once", "factor": 2}, SwitchOnce(factor=2.0)),
    ("accept_all", AcceptAll()),
    ("accept_none", AcceptNone()),
]


@pytest.mark.parametrize(("given", "gate"), GATES, ids=str)
def test_a_gate_is_built_with_its_numbers(given: Any, gate: Gate) -> None:
    assert gate_of(given) == gate


LOSSES = [
    ("nll", NLL()),
    ("forward_kl", ForwardKL()),
    ("kl", ForwardKL()),
    ("reverse_kl", ReverseKL()),
    ("jsd", JSD(beta=0.5)),
    ({"kind": "jsd", "beta": 0.3}, JSD(beta=0.3)),
    ({"kind": "jsd", "beta": FALLING}, JSD(beta=Schedule(0.5, 0.25, shape="cosine", scale="log"))),
    ({"kind": "skew_kl", "alpha": 0.2}, SkewKL(alpha=0.2)),
    ({"kind": "skew_reverse_kl", "alpha": 0.2}, SkewReverseKL(alpha=0.2)),
    ("total_variation", TotalVariation()),
    ({"kind": "policy_gradient", "clip": 0.2}, PolicyGradient(clip=0.2)),
    ("policy_gradient", PolicyGradient(clip=None)),
    ("sampled_reverse_kl", SampledReverseKL()),
]


@pytest.mark.parametrize(("given", "loss"), LOSSES, ids=str)
def test_a_loss_is_built_with_its_numbers(given: Any, loss: Any) -> None:
    assert objective_of(loss=given) == Objective(token_loss=loss)


TARGETS = [
    ("plain", Plain()),
    ("veto", Veto(beta=Schedule(1.0, 0.0))),
    ({"kind": "veto", "beta": 2}, Veto(beta=2.0)),
    ("taid", Taid(t=Schedule(0.4, 1.0))),
    ({"kind": "taid", "t": {"start": 0.1, "end": 0.9}}, Taid(t=Schedule(0.1, 0.9))),
]
WEIGHTS = [
    ("by_author", ByAuthor()),
    ({"kind": "by_author", "data": 0, "student": 1, "teacher": 2.5}, ByAuthor(0.0, 1.0, 2.5)),
    ("teacher_top_k", TeacherTopK(k=5, rejected=0.0)),
    ({"kind": "teacher_top_k", "k": 3, "rejected": 0.1}, TeacherTopK(k=3, rejected=0.1)),
]


@pytest.mark.parametrize(("given", "target"), TARGETS, ids=str)
def test_a_target_is_built_with_its_numbers(given: Any, target: Any) -> None:
    assert objective_of(target=given) == Objective(target=target)


@pytest.mark.parametrize(("given", "weights"), WEIGHTS, ids=str)
def test_weights_are_built_with_their_numbers(given: Any, weights: Any) -> None:
    assert objective_of(weights=given) == Objective(weights=weights)


def test_no_kind_is_left_out_of_these_tables() -> None:
    def covered(table: list[tuple[Any, Any]]) -> set[str]:
        return {given if isinstance(given, str) else given["kind"] for given, _ in table} - {"kl"}

    def known(section: type[Section], key: str) -> set[str]:
        return set(kinds(section.model_fields[key].annotation)) - {"custom"}

    assert covered(GATES) == known(InterleavedPolicy, "gate")
    assert covered(LOSSES) == known(ObjectiveConfig, "loss")
    assert covered(TARGETS) == known(ObjectiveConfig, "target")
    assert covered(WEIGHTS) == known(ObjectiveConfig, "weights")


def test_counts_stay_whole_numbers() -> None:
    gate, weights = gate_of({"kind": "top_k", "k": 3}), objective_of(weights="teacher_top_k").weights
    assert isinstance(gate, TopK)
    assert type(gate.k) is int
    assert isinstance(weights, TeacherTopK)
    assert type(weights.k) is int


def test_temperature_and_reduction_reach_the_objective() -> None:
    assert objective_of(temperature=2, reduction="sequence") == Objective(temperature=2.0, reduction="sequence")


@pytest.mark.parametrize(
    ("given", "loss"),
    [
        ({"teacher": "nll"}, PerAuthor(data=ForwardKL(), student=ForwardKL(), teacher=NLL())),
        ({"loss": "nll", "student": "jsd"}, PerAuthor(data=NLL(), student=JSD(), teacher=NLL())),
        (
            {"data": "nll", "student": "reverse_kl", "teacher": "tv"},
            PerAuthor(data=NLL(), student=ReverseKL(), teacher=TotalVariation()),
        ),
        ({"data": "jsd", "student": "jsd", "teacher": "jsd"}, JSD()),
    ],
)
def test_each_author_has_a_loss_of_its_own(given: Any, loss: Any) -> None:
    assert objective_of(**given).token_loss == loss


PAPER = Sampling(Warp(0.5, 0.5), Warp(0.2, 1.0))


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ("data_set", DataSet(evidence=True)),
        ("teacher", Teacher(PAPER)),
        ("student", Student(PAPER)),
        ({"kind": "interleaved", "gate": "accept_all", "block": 9}, Interleaved(AcceptAll(), 9, PAPER)),
        (
            {
                "kind": "mixture",
                "parts": [{"weight": 1, "policy": "student"}, {"weight": {"start": 1, "end": 0}, "policy": "data_set"}],
            },
            Mixture((Student(PAPER), DataSet()), (1.0, Schedule(1.0, 0.0))),
        ),
        (
            {
                "kind": "staged",
                "parts": [
                    {"share": 0.25, "policy": "data_set"},
                    {"share": 0.75, "policy": {"kind": "mixture", "parts": [{"weight": 2, "policy": "teacher"}]}},
                ],
            },
            Staged((DataSet(), Mixture((Teacher(PAPER),), (2.0,))), (0.25, 0.75)),
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_policy_is_built_with_all_inside_it(given: Any, policy: Policy) -> None:
    assert policy_of(given) == policy


def test_sampling_settings_reach_the_policy() -> None:
    settings = {
        "student": {"temperature": 0.7, "top_p": 0.9},
        "teacher": {"temperature": 0.0, "top_p": 0.8},
        "max_new_tokens": 7,
        "slots": 3,
        "responses_per_prompt": 2,
        "stop_strings": ["a", "\n"],
    }
    built = build_policy(config(policy="student", sampling=settings), evidence=False, student_logp=True)
    assert built == Student(
        Sampling(
            student_warp=Warp(0.7, 0.9),
            teacher_warp=Warp(0.0, 0.8),
            max_new_tokens=7,
            slots=3,
            responses_per_prompt=2,
            stop_strings=("a", "\n"),
            evidence=False,
            student_logp=True,
        )
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_builds(method: str) -> None:
    run_config = config(method=method)
    objective = build_objective(run_config.objective)
    policy = build_policy(run_config, evidence=objective.needs_teacher)
    assert objective.needs_teacher == (method not in {"sft", "seq_kd"})
    kinds_of_policy = {
        "data_set": DataSet,
        "teacher": Teacher,
        "student": Student,
        "interleaved": Interleaved,
        "mixture": Mixture,
        "staged": Staged,
    }
    assert type(policy) is kinds_of_policy[METHODS[method].policy["kind"]]


MODULE = """
from dataclasses import dataclass
from skd.objectives import ForwardKL
from skd.sampling import TopK

@dataclass(frozen=True)
class MyGate(TopK):
    share: float = 0.5

@dataclass(frozen=True)
class MyLoss(ForwardKL):
    names: tuple = ()

class Empty:
    pass

class Refuses:
    def __init__(self, k=1):
        raise RuntimeError("k must be\\nodd")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the user's own on the path: one that works, one that cannot be read."""
    (tmp_path / "own_parts_of_skd.py").write_text(MODULE)
    (tmp_path / "broken_parts_of_skd.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)


def custom(path: str, **options: Any) -> dict[str, Any]:
    return {"kind": "custom", "path": path, "options": options}


def test_a_gate_of_ones_own_is_made_with_its_options(own: None) -> None:
    gate = gate_of(custom("own_parts_of_skd:MyGate", k=3, share=0.25))
    assert (type(gate).__name__, gate.k, gate.share) == ("MyGate", 3, 0.25)  # type: ignore[attr-defined]


def test_a_loss_of_ones_own_is_made_with_its_options(own: None) -> None:
    loss = objective_of(loss=custom("own_parts_of_skd:MyLoss", names=["a", "b"])).token_loss
    assert (type(loss).__name__, loss.names) == ("MyLoss", ["a", "b"])  # type: ignore[attr-defined]


def test_a_loss_of_ones_own_may_be_for_one_author(own: None) -> None:
    loss = objective_of(teacher=custom("own_parts_of_skd:MyLoss")).token_loss
    assert isinstance(loss, PerAuthor)
    assert (type(loss.teacher).__name__, loss.student) == ("MyLoss", ForwardKL())


WAY_OUT = "check the path and its options; the module must be importable, for example from PYTHONPATH"
BROKEN = [
    (
        custom("nowhere_at_all:Gate"),
        f"cannot be made: ModuleNotFoundError: No module named 'nowhere_at_all'; {WAY_OUT}",
    ),
    (custom("own_parts_of_skd:Gone"), "cannot be made: AttributeError: module 'own_parts_of_skd' has no attribute"),
    (custom("own_parts_of_skd:MyGate", q=1), "cannot be made: TypeError: MyGate.__init__() got an unexpected keyword"),
    (custom("own_parts_of_skd:Refuses", k=2), f"cannot be made: RuntimeError: k must be\\nodd; {WAY_OUT}"),
    (custom("broken_parts_of_skd:Gate"), "cannot be made: SyntaxError: "),
    (
        custom("own_parts_of_skd:Empty"),
        "makes a Empty, which has no judge, drafts, judges, needs_student, state_size; add what a gate must have",
    ),
    (custom("own_parts_of_skd:MyGate", k=0), "is 0; it must be 1 or more"),
]


@pytest.mark.parametrize(("gate", "message"), BROKEN, ids=[message[:50] for _, message in BROKEN])
def test_a_gate_that_cannot_be_made_is_one_clear_error(gate: Any, message: str, own: None) -> None:
    with pytest.raises(ConfigError) as caught:
        gate_of(gate)
    text = str(caught.value)
    assert message in text
    assert text.startswith("error[SKD-C")
    assert len(text.splitlines()) == 1


def test_a_loss_that_cannot_be_made_is_one_clear_error(own: None) -> None:
    with pytest.raises(ConfigError) as caught:
        objective_of(student=custom("own_parts_of_skd:Empty"))
    assert str(caught.value) == (
        "error[SKD-C10] loss: own_parts_of_skd:Empty makes a Empty, which has no __call__, needs_teacher, "
        "needs_rollout_logp; add what a loss must have"
    )


def test_the_papers_sampling_is_the_default() -> None:
    assert policy_of("student") == Student(Sampling())
    assert Sampling() == PAPER


@pytest.mark.parametrize("wanted", [False, True])
def test_a_prompt_cache_and_compiled_passes_are_made_where_they_are_wanted(wanted):
    settings = {"prompt_cache_mb": 3 if wanted else 0, "compile": wanted}
    sampling = build_policy(config(policy="student", sampling=settings), evidence=False).sampling
    assert isinstance(sampling.kept_prompts, PromptCache) == wanted
    assert isinstance(sampling.execution, Compiled) == wanted

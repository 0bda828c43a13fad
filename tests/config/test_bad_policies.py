"""Mistakes in policies, objectives and their numbers: the whole message, wherever it stands in lists and unions."""

from collections.abc import Callable
from typing import Any

import pytest

from skd.config import RunConfig, config_of
from skd.errors import ConfigError
from tests.config.conftest import BASE

Problems = Callable[..., list[str]]

ALL_LOSSES = (
    "nll, forward_kl, reverse_kl, jsd, skew_kl, skew_reverse_kl, total_variation, policy_gradient, sampled_reverse_kl, "
    "custom"
)
ALL_GATES = "top_k, top_p, min_prob, interpolated, switch_once, accept_all, accept_none, custom"
ALL_POLICIES = "data_set, teacher, student, interleaved, mixture, staged"


def mixture(*parts: str) -> str:
    return f"policy: {{kind: mixture, parts: [{', '.join(parts)}]}}"


def jsd(beta: str) -> str:
    return f"objective: {{loss: {{kind: jsd, beta: {beta}}}}}"


ONE_PROBLEM = [
    # Names that do not exist (C05)
    (
        "objective: {loss: jds}",
        f'C05] train.yaml:1: objective.loss is the text "jds", expected one of {ALL_LOSSES}; did you mean jsd?',
    ),
    (
        "objective: {loss: {kind: jds, beta: 0.3}}",
        f'C05] train.yaml:1: objective.loss.kind is the text "jds", expected one of {ALL_LOSSES}; did you mean jsd?',
    ),
    (
        "objective: {teacher: revrse_kl}",
        f'C05] train.yaml:1: objective.teacher is the text "revrse_kl", expected one of {ALL_LOSSES}; '
        "did you mean reverse_kl?",
    ),
    (
        "policy: {gate: topk}",
        f'C05] train.yaml:1: policy.gate is the text "topk", expected one of {ALL_GATES}; did you mean top_k?',
    ),
    (
        "policy: studnet",
        f'C05] train.yaml:1: policy is the text "studnet", expected one of {ALL_POLICIES}; did you mean student?',
    ),
    (
        mixture("{weight: 1, policy: studnet}"),
        f'C05] train.yaml:1: policy.parts.0.policy is the text "studnet", expected one of {ALL_POLICIES}; '
        "did you mean student?",
    ),
    (
        mixture("{weight: 1, policy: student}", "{weight: 1, policy: {kind: interleaved, gate: {kind: topk, k: 3}}}"),
        f'C05] train.yaml:1: policy.parts.1.policy.gate.kind is the text "topk", expected one of {ALL_GATES}; '
        "did you mean top_k?",
    ),
    (
        jsd("{start: 0.1, end: 0.5, shape: cosin}"),
        'C05] train.yaml:1: objective.loss.beta.shape is the text "cosin", expected one of linear, cosine; '
        "did you mean cosine?",
    ),
    # Keys that do not exist, in lists and unions (C05)
    (
        mixture("{weight: 1, policy: {kind: interleaved, gate: {kind: top_k, kk: 3}}}"),
        "C05] train.yaml:1: policy.parts.0.policy.gate.kk is an unknown key; did you mean policy.parts.0.policy.gate.",
    ),
    (
        mixture("{weight: 1, policy: {kind: student, qqqq: 3}}"),
        "C05] train.yaml:1: policy.parts.0.policy.qqqq is an unknown key; the keys under policy.parts.0.policy are kin",
    ),
    (
        mixture("{weight: 1, wieght: 1, policy: student}"),
        "C05] train.yaml:1: policy.parts.0.wieght is an unknown key; did you mean policy.parts.0.weight?",
    ),
    (
        mixture("{weight: 1, share: 1, policy: student}"),
        "C05] train.yaml:1: policy.parts.0.share is an unknown key; the keys under policy.parts.0 are policy, weight",
    ),
    (
        jsd("{start: 0.1, end: 0.5, shap: cosine}"),
        "C05] train.yaml:1: objective.loss.beta.shap is an unknown key; did you mean objective.loss.beta.shape?",
    ),
    (
        "policy: {gate: {kind: custom, path: 'a.b:C', option: {k: 1}}}",
        "C05] train.yaml:1: policy.gate.option is an unknown key; did you mean policy.gate.options?",
    ),
    ("objective: {los: jsd}", "C05] train.yaml:1: objective.los is an unknown key; did you mean objective.loss?"),
    # Keys that another kind has (C05)
    (
        "objective: {loss: {beta: 0.2}}",
        "C05] train.yaml:1: objective.loss.beta is an unknown key of kind forward_kl; "
        "remove it, or write objective.loss.kind: jsd",
    ),
    (
        "objective: {loss: {kind: jsd, alpha: 0.2}}",
        "C05] train.yaml:1: objective.loss.alpha is an unknown key of kind jsd; "
        "remove it, or write objective.loss.kind: skew_kl or skew_reverse_kl",
    ),
    (
        "method: ca_opd\npolicy: {gate: {k: 3}}",
        "C05] train.yaml:2: policy.gate.k is an unknown key of kind min_prob; "
        "remove it, or write policy.gate.kind: top_k",
    ),
    (
        "method: on_policy\npolicy: {gate: {k: 3}}",
        "C05] train.yaml:2: policy.gate is an unknown key of kind student; "
        "remove it, or write policy.kind: interleaved",
    ),
    (
        "method: imitkd\npolicy: {block: 3}",
        "C05] train.yaml:2: policy.block is an unknown key of kind mixture; "
        "remove it, or write policy.kind: interleaved",
    ),
    (
        mixture("{weight: 1, policy: {kind: student, block: 3}}"),
        "C05] train.yaml:1: policy.parts.0.policy.block is an unknown key of kind student; "
        "remove it, or write policy.parts.0.policy.kind: interleaved",
    ),
    (
        "policy: {parts: [{weight: 1, policy: student}]}",
        "C05] train.yaml:1: policy.parts is an unknown key of kind interleaved; "
        "remove it, or write policy.kind: mixture or staged",
    ),
    # Keys that stand somewhere else, and those of other tools (C05)
    (
        "objective: {kind: jsd}",
        "C05] train.yaml:1: objective.kind is an unknown key; did you mean objective.loss.kind?",
    ),
    (
        "objective: {beta: 0.3}",
        "C05] train.yaml:1: objective.beta is an unknown key; did you mean objective.loss.beta?",
    ),
    ("objective: {divergence: kl}", "objective.divergence is an unknown key; did you mean objective.loss?"),
    ("policy: {k: 3}", "C05] train.yaml:1: policy.k is an unknown key; did you mean policy.gate.k?"),
    ("beta: 0.3", "C05] train.yaml:1: beta is an unknown key; did you mean objective.loss.beta?"),
    ("loss: jsd", "C05] train.yaml:1: loss is an unknown key; did you mean objective.loss?"),
    ("gate: top_k", "C05] train.yaml:1: gate is an unknown key; did you mean policy.gate?"),
    ("block: 3", "C05] train.yaml:1: block is an unknown key; did you mean policy.block?"),
    ("parts: []", "C05] train.yaml:1: parts is an unknown key; did you mean policy.parts?"),
    # Keys that are missing (C17)
    (
        "policy: {gate: min_prob}",
        "C17] train.yaml:1: policy.gate.floor is missing; add policy.gate.floor (Smallest probability of the raw",
    ),
    (
        "policy: mixture",
        "C17] train.yaml:1: policy.parts is missing; add policy.parts (The policies with their weights)",
    ),
    (
        mixture("{weight: 1}"),
        "C17] train.yaml:1: policy.parts.0.policy is missing; add policy.parts.0.policy (Who writes them)",
    ),
    (
        mixture("{weight: 1, policy: {block: 3}}"),
        "C17] train.yaml:1: policy.parts.0.policy.kind is missing; add kind: interleaved",
    ),
    ("objective: {weights: {student: 1}}", "C17] train.yaml:1: objective.weights.kind is missing; add kind: by_author"),
    (
        "objective: {target: {x: 1}}",
        "C17] train.yaml:1: objective.target.kind is missing; add kind, one of plain, veto, taid",
    ),
    (
        jsd("{start: 0.1}"),
        "C17] train.yaml:1: objective.loss.beta.end is missing; "
        "add objective.loss.beta.end (Value at the last step, or after that many tokens)",
    ),
    # Values of another sort (C03, C06)
    (
        jsd("x"),
        'C03] train.yaml:1: objective.loss.beta is the text "x", expected a number, or a schedule with start and end; '
        "write for example objective.loss.beta: 0.5",
    ),
    (
        "policy: {gate: {k: '3'}}",
        'C03] train.yaml:1: policy.gate.k is the text "3", expected a whole number, or a schedule with start and end; '
        "write policy.gate.k: 3, without quotes, dot or exponent",
    ),
    (
        "policy: {gate: {k: 2.5}}",
        "C06] train.yaml:1: policy.gate.k is 2.5, expected a whole number, or a schedule with start and end; "
        "write for example policy.gate.k: 25",
    ),
    (
        jsd("{start: true, end: 0.5}"),
        "C06] train.yaml:1: objective.loss.beta.start is the boolean true, expected a number; "
        "correct objective.loss.beta.start (Value at the first step, or at the first token)",
    ),
    (
        "objective: {temperature: {start: 1, end: 2}}",
        "C06] train.yaml:1: objective.temperature is a mapping, expected a number; "
        "write for example objective.temperature: 1.0",
    ),
    (
        "objective: {loss: [jsd]}",
        f"C06] train.yaml:1: objective.loss is a list, expected one of {ALL_LOSSES}, or a mapping with a kind; "
        "write for example objective.loss: forward_kl",
    ),
    (
        "objective: {loss: null}",
        f"C06] train.yaml:1: objective.loss is empty (null), expected one of {ALL_LOSSES}, or a mapping with a kind; ",
    ),
    (
        "policy: {gate: 3}",
        f"C06] train.yaml:1: policy.gate is 3, expected one of {ALL_GATES}, or a mapping with a kind; "
        "write for example policy.gate: top_k",
    ),
    (
        mixture(),
        "C06] train.yaml:1: policy.parts is a list, expected a list that is not empty; "
        "correct policy.parts (The policies with their weights)",
    ),
    (
        mixture("student"),
        'C06] train.yaml:1: policy.parts.0 is the text "student", expected a mapping of keys to values; '
        "give it the keys weight, policy",
    ),
    (
        "policy: {kind: mixture, parts: {weight: 1, policy: student}}",
        "C06] train.yaml:1: policy.parts is a mapping, expected a list; "
        "correct policy.parts (The policies with their weights)",
    ),
    (
        "policy: {gate: {kind: custom, path: gates}}",
        'C06] train.yaml:1: policy.gate.path is the text "gates", expected an import path, package.module:Name; '
        "correct policy.gate.path (Where it is: package.module:Name)",
    ),
    (
        "objective: {loss: {kind: custom, path: 'my losses:Mine'}}",
        'C06] train.yaml:1: objective.loss.path is the text "my losses:Mine", expected an import path, package.module:',
    ),
    (
        "objective: {loss: {kind: custom, path: 'a.b:1'}}",
        'C06] train.yaml:1: objective.loss.path is the text "a.b:1", expected an import path, package.module:Name; ',
    ),
    # Numbers out of range, the ends of schedules too (C07)
    (
        jsd("{start: 0.1, end: 1}"),
        "C07] train.yaml:1: objective.loss.beta.end is 1, expected a number above 0 and below 1; "
        "correct objective.loss.beta.end (Value at the last step, or after that many tokens)",
    ),
    (
        "policy: {gate: {k: {start: 0, end: 5}}}",
        "C07] train.yaml:1: policy.gate.k.start is 0, expected a number of at least 1 and at most 2147483647; "
        "correct policy.gate.k.start (Value at the first step, or at the first token)",
    ),
    (
        "policy: {gate: {kind: interpolated, g: {start: 0.5, end: 1.5}}}",
        "C07] train.yaml:1: policy.gate.g.end is 1.5, expected a number of at least 0 and at most 1; correct policy",
    ),
    (
        "method: taid\nobjective: {target: {t: {end: 2}}}",
        "C07] train.yaml:2: objective.target.t.end is 2, expected a number of at least 0 and at most 1; correct obj",
    ),
    (
        mixture("{weight: 1, policy: {kind: interleaved, gate: {kind: top_k, k: {start: 5, end: 0}}}}"),
        "C07] train.yaml:1: policy.parts.0.policy.gate.k.end is 0, expected a number of at least 1 and at most",
    ),
    (
        mixture("{weight: 1, policy: student}", "{weight: {start: 1, end: -1}, policy: teacher}"),
        "C07] train.yaml:1: policy.parts.1.weight.end is -1, expected a number of at least 0; correct policy.parts.1",
    ),
    (
        mixture("{weight: -1, policy: student}"),
        "C07] train.yaml:1: policy.parts.0.weight is -1, expected a number of at least 0; "
        "correct policy.parts.0.weight (Share of the responses, after dividing by the sum of all weights; a schedule",
    ),
    (
        "objective: {target: {kind: veto, beta: -1}}",
        "C07] train.yaml:1: objective.target.beta is -1, expected a number of at least 0; "
        "write for example objective.target.beta: {start: 1.0, end: 0.0}",
    ),
    (
        "objective: {weights: {kind: by_author, data: -1}}",
        "C07] train.yaml:1: objective.weights.data is -1, expected a n",
    ),
    (
        "objective: {loss: {kind: policy_gradient, clip: 0}}",
        "objective.loss.clip is 0, expected a number above 0; correct",
    ),
    (
        "policy: {gate: {kind: switch_once, factor: 0}}",
        "policy.gate.factor is 0, expected a number above 0; write for ex",
    ),
    (jsd("{start: .nan, end: 0.5}"), "objective.loss.beta.start is .nan, expected a finite number; correct objective."),
    # Keys that do not go together (C10)
    (
        jsd("{start: 0.1, end: 0.5, over: response}"),
        "C10] train.yaml:1: objective.loss.beta.over is response, and tokens is missing; "
        "add tokens: the number after which end is reached",
    ),
    (
        jsd("{start: 0.1, end: 0.5, tokens: 5}"),
        "C10] train.yaml:1: objective.loss.beta.tokens is 5, and over is training; write over: response, or tokens",
    ),
    (
        "method: skd_adaptive_k\npolicy: {gate: {k: {over: training}}}",
        "C10] train.yaml:2: policy.gate.k.tokens is 128, and over is training; write over: response, or tokens: null",
    ),
    (
        "policy: {gate: {kind: min_prob, floor: {start: 0.5, end: 0, scale: log}}}",
        "C10] train.yaml:1: policy.gate.floor.end is 0 on a log scale; write a number above 0, or scale: linear",
    ),
    (
        mixture("{weight: {start: 1, end: 0, over: response, tokens: 4}, policy: student}"),
        "C10] train.yaml:1: policy.parts.0.weight.over is response, and one coin decides for a whole response; "
        "write over: training, and leave tokens out",
    ),
    (
        mixture("{weight: 0, policy: student}", "{weight: {start: 0, end: 1}, policy: teacher}"),
        "C10] train.yaml:1: policy.parts has only weights of 0 at the start of the training; let one be above 0",
    ),
    (
        mixture("{weight: {start: 1, end: 0}, policy: student}"),
        "C10] train.yaml:1: policy.parts has only weights of 0 at the end of the training; let one be above 0",
    ),
    (
        "policy: {kind: staged, parts: [{share: 0.3, policy: data_set}, {share: 0.5, policy: student}]}",
        "C10] train.yaml:1: policy.parts has the shares 0.3, 0.5, which add up to 0.8; make them add up to 1",
    ),
    (
        mixture("{weight: 1, policy: {kind: staged, parts: [{share: 0.9, policy: student}]}}"),
        "C10] train.yaml:1: policy.parts.0.policy.parts has the shares 0.9, which add up to 0.9; make them add up to 1",
    ),
    (
        "objective: {target: veto, loss: nll}",
        "C10] train.yaml:1: objective.target veto changes nothing: objective.loss nll looks at the token written "
        "alone; write objective.loss: forward_kl, or objective.target: plain",
    ),
    (
        "method: veto\nobjective: {loss: policy_gradient}",
        "C10] train.yaml:1: method veto (objective veto) changes nothing: objective.loss policy_gradient looks at the",
    ),
    (
        "policy: {gate: {kind: custom, path: 'a.b:C', options: {key: sk-abc}}}",
        "C11] train.yaml:1: the value of policy.gate.options.key looks like a secret, and a config file is saved and",
    ),
]


@pytest.mark.parametrize(("lines", "message"), ONE_PROBLEM, ids=[lines[:60] for lines, _ in ONE_PROBLEM])
def test_one_mistake_gives_one_message(lines: str, message: str, problems: Problems) -> None:
    found = problems(f"{lines}\n{BASE}")
    assert len(found) == 1, found
    assert message in found[0]


def test_the_line_is_that_of_the_key_in_the_list(problems: Problems) -> None:
    text = """policy:
  kind: mixture
  parts:
  - weight: 1
    policy: student
  - weight: 1
    policy:
      kind: interleaved
      gate:
        kind: top_k
        k:
          start: 5
          end: 0
"""
    assert problems(text + BASE)[0].startswith("error[SKD-C07] train.yaml:13: policy.parts.1.policy.gate.k.end is 0,")


TEACHERLESS = [
    # (method, lines, what needs a teacher, the way out besides adding one)
    ("sft", "objective: {loss: jsd}", "objective.loss jsd", "objective.loss: nll"),
    ("sft", "objective: {loss: kl}", "objective.loss forward_kl", "objective.loss: nll"),
    ("sft", "objective: {data: reverse_kl}", "objective.data reverse_kl", "objective.data: nll"),
    ("sft", "objective: {student: {kind: jsd}}", "objective.student.kind jsd", "objective.student.kind: nll"),
    (
        "sft",
        "objective: {teacher: policy_gradient}",
        "objective.teacher policy_gradient",
        "objective.teacher: nll",
    ),
    ("sft", "objective: {weights: teacher_top_k}", "objective.weights teacher_top_k", "objective.weights: by_author"),
    ("sft", "policy: student", "policy student", "policy: data_set"),
    ("sft", "policy: {kind: teacher}", "policy.kind teacher", "policy.kind: data_set"),
    (
        "sft",
        mixture("{weight: 1, policy: data_set}", "{weight: 1, policy: student}"),
        "policy.parts.1.policy student",
        "policy.parts.1.policy: data_set",
    ),
    (
        "sft",
        "policy: {kind: staged, parts: [{share: 1, policy: {"
        + mixture("{weight: 1, policy: {kind: teacher}}").removeprefix("policy: {")
        + "}]}",
        "policy.parts.0.policy.parts.0.policy.kind teacher",
        "policy.parts.0.policy.parts.0.policy.kind: data_set",
    ),
    ("taid", "", "method taid (objective forward_kl)", "method: sft"),
    ("imitkd", "", "method imitkd", "method: sft"),
    ("two_stage", "", "method two_stage", "method: sft"),
    (
        "selectkd",
        "objective: {loss: nll}\npolicy: data_set",
        "method selectkd (objective teacher_top_k)",
        "method: sft",
    ),
]


@pytest.mark.parametrize(("method", "lines", "what", "way_out"), TEACHERLESS)
def test_whatever_needs_a_teacher_says_so(method: str, lines: str, what: str, way_out: str, problems: Problems) -> None:
    line = 1 if way_out.startswith("method") else 2
    assert problems(f"method: {method}\n{lines}\nstudent: s\ndata: {{train: x}}\n") == [
        f"error[SKD-C10] train.yaml:{line}: {what} needs a teacher, and teacher is missing; "
        f"add teacher: PATH, or write {way_out}"
    ]


def test_a_custom_loss_may_do_without_a_teacher(load: Callable[..., RunConfig]) -> None:
    load("method: sft\nobjective: {loss: {kind: custom, path: 'a.b:C'}}\nstudent: s\ndata: {train: x}\n")


@pytest.mark.parametrize(
    ("lines", "what", "which"),
    [
        ("method: imitkd", "method imitkd (policy data_set)", "method"),
        ("method: two_stage", "method two_stage (policy data_set)", "method"),
        (mixture("{weight: 1, policy: data_set}"), "policy.parts.0.policy data_set", "policy"),
        (
            "policy: {kind: staged, parts: [{share: 0.5, policy: student}, {share: 0.5, policy: {kind: data_set}}]}",
            "policy.parts.1.policy.kind data_set",
            "policy",
        ),
    ],
)
def test_references_are_missed_inside_mixtures_and_stages(
    lines: str, what: str, which: str, problems: Problems
) -> None:
    text = f"{lines}\nteacher: t\nstudent: s\ndata: {{train: {{path: x, response_field: null}}}}\n"
    assert problems(text) == [
        f"error[SKD-C10] train.yaml:4: {what} trains on the responses of the data, and data.train.response_field is "
        f"null; name the field in data.train.response_field, or choose another {which}"
    ]


def nested(levels: int) -> dict[str, Any]:
    """A student inside this many mixtures."""
    policy: dict[str, Any] = {"kind": "student"}
    for _ in range(levels):
        policy = {"kind": "mixture", "parts": [{"weight": 1, "policy": policy}]}
    return policy


def test_policies_nest_as_deep_as_a_file_may(problems: Problems, load: Callable[..., RunConfig]) -> None:
    load(f"policy: {nested(5)}\n{BASE}")
    too_deep = "error[SKD-C09] train.yaml:1: more than 20 levels of nesting; remove levels"
    assert problems(f"policy: {nested(7)}\n{BASE}") == [too_deep]


@pytest.mark.parametrize("levels", [7, 2000])
def test_plain_values_nest_as_deep_as_a_file_may(levels: int) -> None:
    values: dict[str, Any] = {"teacher": "t", "student": "s", "data": {"train": "x"}, "policy": nested(levels)}
    with pytest.raises(ConfigError) as caught:
        config_of(values)
    assert str(caught.value) == "error[SKD-C09] config: more than 20 levels of nesting; remove levels"


def test_values_that_hold_themselves_are_refused() -> None:
    options: dict[str, Any] = {}
    options["me"] = options
    with pytest.raises(ConfigError, match="more than 20 levels of nesting"):
        config_of({"student": "s", "policy": {"gate": {"kind": "custom", "path": "a.b:C", "options": options}}})


def test_options_are_plain_values() -> None:
    gate = {"kind": "custom", "path": "a.b:C", "options": {"k": object()}}
    values = {"teacher": "t", "student": "s", "data": {"train": "x"}, "policy": {"gate": gate}}
    with pytest.raises(ConfigError, match=r"error\[SKD-C06\] config: policy\.gate\.options\.k is a object, expected"):
        config_of(values)

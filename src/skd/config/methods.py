"""Methods by name: each is a bundle of one policy and one objective, and of the sampling settings they need.

A bundle is a set of defaults: what a config says itself goes first. Papers are those of the method, numbers in
docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from skd.config.fields import kind_from_text

__all__ = [
    "ALIASES",
    "METHODS",
    "Method",
    "MethodName",
    "merged",
    "method_rows",
    "methods_table",
    "recipe_of",
    "with_method",
]

MethodName = Literal[
    "sft",
    "seq_kd",
    "supervised_kd",
    "on_policy",
    "imitkd",
    "two_stage",
    "skd",
    "skd_adaptive_k",
    "mixed_skd",
    "ipd",
    "ca_opd",
    "adaswitch",
    "selectkd",
    "veto",
    "taid",
    "distillm",
    "opd",
]

_Section = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """What a method name stands for where the config says nothing else."""

    title: str
    paper: str
    policy: _Section
    objective: _Section = field(default_factory=lambda: {"loss": {"kind": "forward_kl"}})
    sampling: _Section = field(default_factory=dict)

    @property
    def sections(self) -> Mapping[str, _Section]:
        """The defaults by section of the config."""
        return {"policy": self.policy, "objective": self.objective, "sampling": self.sampling}


def _share(weight: float, policy: _Section) -> _Section:
    return {"weight": weight, "policy": policy}


_DATA, _STUDENT, _TEACHER = {"kind": "data_set"}, {"kind": "student"}, {"kind": "teacher"}
_NLL = {"loss": {"kind": "nll"}}
_RAW_STUDENT = {"student": {"temperature": 1.0, "top_p": 1.0}}
"""Estimates from the token written are right only where the student samples its own distribution."""


def _interleaved(**gate: Any) -> _Section:
    return {"kind": "interleaved", "gate": gate}


_SKD = _interleaved(kind="top_k", k=25)

METHODS: Mapping[str, Method] = {
    "sft": Method("supervised fine-tuning", "", _DATA, _NLL),
    "seq_kd": Method("sequence-level KD", "arXiv 1606.07947", _TEACHER, _NLL),
    "supervised_kd": Method("supervised KD", "arXiv 1910.01108", _DATA),
    "on_policy": Method("on-policy KD (GKD)", "arXiv 2306.13649", _STUDENT),
    "imitkd": Method(
        "ImitKD", "arXiv 2009.07253", {"kind": "mixture", "parts": [_share(0.5, _STUDENT), _share(0.5, _DATA)]}
    ),
    "two_stage": Method(
        "two-stage KD",
        "arXiv 2410.11325",
        {"kind": "staged", "parts": [{"share": 0.5, "policy": _DATA}, {"share": 0.5, "policy": _STUDENT}]},
    ),
    "skd": Method("speculative KD", "arXiv 2410.11325", _SKD),
    "skd_adaptive_k": Method(
        "speculative KD, K falling along the response",
        "arXiv 2410.11325",
        _interleaved(kind="top_k", k={"start": 25, "end": 1, "over": "response", "tokens": 128}),
    ),
    "mixed_skd": Method(
        "mixed speculative KD",
        "arXiv 2410.11325",
        {"kind": "mixture", "parts": [_share(0.5, _SKD), _share(0.5, _DATA)]},
    ),
    "ipd": Method(
        "interpolated policy distillation",
        "arXiv 2609.37170",
        _interleaved(kind="interpolated", g={"start": 0.1, "end": 0.0}),
        {"loss": {"kind": "policy_gradient", "clip": 0.2}, "teacher": {"kind": "nll"}},
        {**_RAW_STUDENT, "teacher": {"temperature": 1.0, "top_p": 1.0}},
    ),
    "ca_opd": Method(
        "CA-OPD",
        "arXiv 2609.02401",
        _interleaved(kind="min_prob", floor={"start": 0.5, "end": 0.25, "shape": "cosine", "scale": "log"}),
        {"loss": {"kind": "forward_kl"}, "teacher": {"kind": "nll"}},
        {"teacher": {"temperature": 0.0}},
    ),
    "adaswitch": Method("AdaSwitch", "arXiv 2510.07842", _interleaved(kind="switch_once", factor=3.0)),
    "selectkd": Method(
        "SelecTKD",
        "arXiv 2510.24021",
        _STUDENT,
        {"loss": {"kind": "forward_kl"}, "weights": {"kind": "teacher_top_k", "k": 5}},
    ),
    "veto": Method(
        "Veto",
        "arXiv 2601.07155",
        _STUDENT,
        {"loss": {"kind": "forward_kl"}, "target": {"kind": "veto", "beta": {"start": 1.0, "end": 0.0}}},
    ),
    "taid": Method(
        "TAID",
        "arXiv 2501.16937",
        _DATA,
        {"loss": {"kind": "forward_kl"}, "target": {"kind": "taid", "t": {"start": 0.4, "end": 1.0}}},
    ),
    "distillm": Method("DistiLLM's skew KL", "arXiv 2402.03898", _STUDENT, {"loss": {"kind": "skew_kl"}}),
    "opd": Method(
        "on-policy distillation from log-probs",
        "https://thinkingmachines.ai/blog/on-policy-distillation/",
        _STUDENT,
        {"loss": {"kind": "policy_gradient"}},
        _RAW_STUDENT,
    ),
}
assert tuple(METHODS) == get_args(MethodName)

ALIASES: Mapping[str, MethodName] = {
    "on-policy": "on_policy",
    "gkd": "on_policy",
    "mixed": "imitkd",
    "mixed_train": "two_stage",
    "seq-kd": "seq_kd",
    "supervised-kd": "supervised_kd",
}
"""Other spellings, among them those of the paper's code."""


def recipe_of(name: str) -> str:
    """A config of this repository that runs the method in seconds, on a task and models that the package holds."""
    return f"recipes/number_words/{name}.yaml"


def method_rows() -> list[tuple[str, ...]]:
    """Name, policy, loss, title, paper and recipe of every method, below a row of headings."""
    heading = ("method", "policy (gate)", "loss (target, weights)", "what", "paper", "recipe")
    return [
        heading,
        *(
            (name, _policy_text(m.policy), _objective_text(m.objective), m.title, m.paper, recipe_of(name))
            for name, m in METHODS.items()
        ),
    ]


def methods_table(columns: int = 1000) -> str:
    """All methods with policy, loss, paper and recipe: one line each, or three where lines are longer than allowed."""
    rows = method_rows()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if max(map(len, lines)) > columns:
        indent = " " * widths[0]
        lines = [
            line
            for name, policy, loss, title, paper, recipe in rows[1:]
            for line in (
                f"{name:{widths[0]}}  {', '.join(filter(None, (title, paper)))}",
                f"{indent}  {policy}, {loss}",
                f"{indent}  {recipe}",
            )
        ]
    return "".join(f"{line}\n" for line in lines)


def _policy_text(policy: _Section) -> str:
    if "gate" in policy:
        return f"{policy['kind']} ({policy['gate']['kind']})"
    parts = [part["policy"]["kind"] for part in policy.get("parts", ())]
    return str(policy["kind"]) + (f" ({', '.join(parts)})" if parts else "")


def _objective_text(objective: _Section) -> str:
    others = [objective[key]["kind"] for key in ("target", "weights") if key in objective]
    others += [f"{key}: {objective[key]['kind']}" for key in ("data", "student", "teacher") if key in objective]
    return str(objective["loss"]["kind"]) + (f" ({', '.join(others)})" if others else "")


def with_method(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """A config given as plain data, with its method's defaults put in; unchanged when the method is unknown."""
    name = config.get("method", "skd")
    method = METHODS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    sections = {} if method is None else method.sections
    given = {key: config[key] for key in sections if config.get(key) is not None}
    return {**config, **sections, **{key: merged(sections[key], value) for key, value in given.items()}}


def merged(default: Any, given: Any) -> Any:
    """``given`` over ``default``, section by section; a section of another kind takes no defaults."""
    if isinstance(default, Mapping) and "kind" in default:
        given = kind_from_text(given)
    if not (isinstance(default, Mapping) and isinstance(given, Mapping)):
        return given
    if "kind" in given and given["kind"] != default.get("kind"):
        return given
    return {**default, **{key: merged(default.get(key), value) for key, value in given.items()}}

"""Options that are right alone and wrong together. Both keys are named, since either one may be the mistake.

The functions read plain mappings and skip what has a wrong type, so that a file with other mistakes still gets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skd.config.fields import kind_from_text
from skd.config.methods import with_method

__all__ = ["Contradiction", "contradictions", "kind_of", "policies_in", "said_by"]

_Path = tuple[str | int, ...]
_OF_TOKENS = {"nll", "policy_gradient", "sampled_reverse_kl"}
"""Losses that do not compare whole distributions, so that a target has no part in them."""


@dataclass(frozen=True)
class Contradiction:
    """``found`` at the key ``path``; ``remedy`` names the ways out."""

    path: _Path
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


def contradictions(config: Mapping[Any, Any]) -> list[Contradiction]:
    """All contradictions of a config given as plain data, keys left out taken at their method's defaults."""
    full = with_method(config)
    policies = list(policies_in(full.get("policy"), ("policy",)))
    return [
        *_missing_teacher(config, [*policies, *_teacher_readers(full.get("objective"))]),
        *_missing_references(config, policies),
        *_idle_target(config, full.get("objective")),
        *_no_adapters(config),
        *_quantized_student(config),
        *_idle_teacher_prompt(config),
        *_turns_of_others(config, policies),
        *_flash_attention(config),
        *_scaled_shards(config),
        *_offload(config),
        *_gathered_layers(config),
        *_compiled_shards(config),
        *_served_teacher(config, full),
        *_rollouts(config, policies),
        *_rows_without_route(config),
        *_prompt_cache(config),
        *_costs(config),
    ]


@dataclass(frozen=True)
class _Choice:
    """The section at ``path`` is of this kind."""

    path: _Path
    kind: str


def _get(config: object, *path: str | int) -> Any:
    for key in path:
        if isinstance(config, (list, tuple)) and isinstance(key, int):
            config = config[key] if key < len(config) else None
        else:
            config = config.get(key) if isinstance(config, Mapping) else None
    return config


def kind_of(section: Any) -> str | None:
    """The kind of a section given as plain data, in its short form, too; None where it has none."""
    kind = _get(kind_from_text(section), "kind")
    return kind if isinstance(kind, str) else None


def policies_in(policy: Any, path: _Path) -> Iterator[_Choice]:
    """A policy and all inside it."""
    if kind := kind_of(policy):
        yield _Choice(path, kind)
    parts = _get(policy, "parts")
    for index, part in enumerate(parts if isinstance(parts, (list, tuple)) else ()):
        yield from policies_in(_get(part, "policy"), (*path, "parts", index, "policy"))


def _teacher_readers(objective: Any) -> Iterator[_Choice]:
    """What of an objective compares with the teacher. A custom loss says so itself, once it is made."""
    for key, alone in (
        ("loss", "nll"),
        ("data", "nll"),
        ("student", "nll"),
        ("teacher", "nll"),
        ("weights", "by_author"),
    ):
        if (kind := kind_of(_get(objective, key))) not in {None, alone, "custom"}:
            yield _Choice(("objective", key), str(kind))


def said_by(config: Mapping[Any, Any], choice: _Choice) -> tuple[_Path, str]:
    """The key that made a choice, and how to say it: the method's where the config does not say it itself."""
    value = _get(config, *choice.path)
    if kind_of(value) != choice.kind:
        return ("method",), f"method {config.get('method', 'skd')} ({choice.path[0]} {choice.kind})"
    path = choice.path if isinstance(value, str) else (*choice.path, "kind")
    return path, f"{_dotted(path)} {choice.kind}"


def _dotted(path: _Path) -> str:
    return ".".join(map(str, path))


def _alone(path: _Path) -> str:
    """What to write at ``path`` where there is no teacher."""
    if path == ("method",):
        return "sft"
    return "data_set" if path[0] == "policy" else "by_author" if "weights" in path else "nll"


def _missing_teacher(config: Mapping[Any, Any], choices: list[_Choice]) -> list[Contradiction]:
    if config.get("teacher") is not None:
        return []
    needing = [choice for choice in choices if choice.kind not in {"data_set", "mixture", "staged"}]
    if _stored(config):
        needing = [choice for choice in needing if choice.path[0] != "objective"]
    named = dict.fromkeys(said_by(config, choice) for choice in needing)
    if len(named) > 1 and all(path == ("method",) for path, _ in named):
        named = {(("method",), f"method {config.get('method', 'skd')}"): None}
    return [
        Contradiction(
            path,
            f"{name} needs a teacher, and teacher is missing",
            f"add teacher: PATH, or write {_dotted(path)}: {_alone(path)}",
        )
        for path, name in named
    ]


def _stored(config: Mapping[Any, Any]) -> bool:
    """Whether all rows are stored responses, whose files may hold what the loss needs of the teacher."""
    parts = [part for name in ("train", "validation") if (part := _get(config, "data", name)) is not None]
    sources = [source for part in parts for source in (part if isinstance(part, (list, tuple)) else [part])]
    return {_get(source, "kind") for source in sources} == {"responses"}


def _missing_references(config: Mapping[Any, Any], policies: list[_Choice]) -> list[Contradiction]:
    readers = [choice for choice in policies if choice.kind == "data_set"]
    if not readers:
        return []
    path, name = said_by(config, readers[0])
    found = []
    for place, source in _data_sources(config):
        if "response_field" in source and source["response_field"] is None:
            key = ".".join(map(str, (*place, "response_field")))
            text = f"{name} trains on the responses of the data, and {key} is null"
            remedy = f"name the field in {key}, or choose another {path[0]}"
            found.append(Contradiction((*place, "response_field"), text, remedy))
    return found


def _idle_target(config: Mapping[Any, Any], objective: Any) -> list[Contradiction]:
    kind = kind_of(_get(objective, "target"))
    losses = {kind_of(_get(objective, key)) for key in ("loss", "data", "student", "teacher")} - {None}
    if kind in {None, "plain"} or not losses <= _OF_TOKENS:
        return []
    path, name = said_by(config, _Choice(("objective", "target"), str(kind)))
    text = f"{name} changes nothing: objective.loss {kind_of(_get(objective, 'loss'))} looks at the token written alone"
    return [Contradiction(path, text, "write objective.loss: forward_kl, or objective.target: plain")]


def _data_sources(config: Mapping[Any, Any]) -> Iterator[tuple[tuple[str | int, ...], Mapping[Any, Any]]]:
    """The sources of rows with their keys, given alone or in a list."""
    for part in ("train", "validation"):
        given = _get(config, "data", part)
        listed = enumerate(given) if isinstance(given, (list, tuple)) else ()
        for keys, source in (((), given), *(((index,), item) for index, item in listed)):
            if isinstance(source, Mapping):
                yield ("data", part, *keys), source


def _no_adapters(config: Mapping[Any, Any]) -> list[Contradiction]:
    if _get(config, "teacher", "kind") != "adapter_off" or _get(config, "student", "lora") is not None:
        return []
    text = "teacher.kind is adapter_off, and student.lora is missing: the student has no adapters"
    return [Contradiction(("teacher", "kind"), text, "write student.lora: {r: 16}, or teacher.kind: student")]


def _quantized_student(config: Mapping[Any, Any]) -> list[Contradiction]:
    if _get(config, "student", "quantization") is None or _get(config, "student", "lora") is not None:
        return []
    text = "student.quantization is given and student.lora is missing: quantised weights cannot be trained"
    return [Contradiction(("student", "quantization"), text, "write student.lora: {r: 16}, or remove it")]


def _idle_teacher_prompt(config: Mapping[Any, Any]) -> list[Contradiction]:
    """A teacher's own prompt that nobody reads, or that cannot be written."""
    if _get(config, "data", "teacher_prompt") is None:
        return []
    key: _Path = ("data", "teacher_prompt")
    if config.get("teacher") is None:
        return [Contradiction(key, "data.teacher_prompt is given and teacher is missing", "add teacher, or remove it")]
    if _stored(config):
        text = "data.teacher_prompt is given, and stored responses have token ids in place of the texts it is made of"
        return [
            Contradiction(key, text, "remove it; skd generate stores what the teacher thought under its own prompt")
        ]
    if _get(config, "data", "train_on") == "all":
        text = "data.teacher_prompt stands in place of one prompt, and data.train_on: all trains on several"
        return [Contradiction(key, text, "write data.train_on: last, or remove it")]
    return []


def _turns_of_others(config: Mapping[Any, Any], policies: list[_Choice]) -> list[Contradiction]:
    """A policy that writes the response itself has no use for the later turns of the data's."""
    writing = [choice for choice in policies if choice.kind in {"student", "teacher", "interleaved", "custom"}]
    if _get(config, "data", "train_on") != "all" or not writing:
        return []
    _, name = said_by(config, writing[0])
    text = f"data.train_on is all, and {name} writes a response of its own to the first prompt of a conversation"
    return [Contradiction(("data", "train_on"), text, "write data.train_on: last, or policy: data_set")]


def _flash_attention(config: Mapping[Any, Any]) -> list[Contradiction]:
    precision = _get(config, "train", "precision") or "fp32"
    if _get(config, "student", "attention") != "flash_attention_2" or precision != "fp32":
        return []
    text = "student.attention is flash_attention_2, which has no float32, and train.precision is fp32"
    return [Contradiction(("student", "attention"), text, "write train.precision: bf16, or student.attention: sdpa")]


def _scaled_shards(config: Mapping[Any, Any]) -> list[Contradiction]:
    sharding = _get(config, "train", "sharding") or "none"
    if _get(config, "train", "precision") != "fp16" or sharding == "none":
        return []
    text = f"train.precision is fp16, whose loss scale sees whole gradients, and train.sharding {sharding} cuts them"
    return [Contradiction(("train", "precision"), text, "write train.precision: bf16, or train.sharding: none")]


def _offload(config: Mapping[Any, Any]) -> list[Contradiction]:
    sharding = _get(config, "train", "sharding") or "none"
    if _get(config, "train", "offload") is not True or sharding in ("zero2", "zero3"):
        return []
    text = f"train.offload is true, and train.sharding is {sharding}, whose shards stay on the device"
    return [Contradiction(("train", "offload"), text, "write train.sharding: zero3 or zero2, or leave offload out")]


def _gathered_layers(config: Mapping[Any, Any]) -> list[Contradiction]:
    """What is whole in every process, though no model is to be."""
    if _get(config, "train", "gather") != "layer":
        return []
    key, remedy = ("train", "gather"), "write train.gather: step, or leave it out"
    if (_get(config, "train", "sharding") or "none") == "none":
        text = "train.gather is layer, and train.sharding is none, under which every process has whole models"
        return [Contradiction(key, text, "write train.sharding: fsdp2, or leave gather out")]
    found = []
    if _get(config, "teacher", "kind") == "average":
        found.append("teacher.kind is average, which stays whole")
    for name, model in {"student": config.get("student"), **_teachers(config)}.items():
        if _get(model, "quantization") is not None:
            found.append(f"{name}.quantization is given, whose weights stay whole")
    if _get(config, "sampling", "rollouts") is not None:
        found.append("sampling.rollouts is given, for which each process writes a whole model")
    return [Contradiction(key, f"train.gather is layer, and {text}", remedy) for text in found]


def _compiled_shards(config: Mapping[Any, Any]) -> list[Contradiction]:
    sharding = _get(config, "train", "sharding") or "none"
    if _get(config, "sampling", "compile") is not True or sharding == "none":
        return []
    text = "sampling.compile is true, whose graphs remember where the weights lie"
    text += f", and train.sharding {sharding} gathers them to another place at each step"
    return [Contradiction(("sampling", "compile"), text, "leave sampling.compile out, or write train.sharding: none")]


def _served_teacher(config: Mapping[Any, Any], full: Mapping[Any, Any]) -> list[Contradiction]:
    """What needs more of the teacher than the most probable ids that a server tells."""
    served = _served(config)
    if not served:
        return []
    found = []
    key, top = min(served, key=lambda item: item[1])
    for path, gate in _gates(full.get("policy"), ("policy",)):
        k = gate.get("k", 25) if gate.get("kind") == "top_k" else None
        if isinstance(k, int) and k > top:
            text = f"{_dotted(path)}.k is {k}, and the server tells {key}.top_logprobs {top} ids"
            found.append(Contradiction(path, text, f"write {_dotted(path)}.k: {top}, or a larger top_logprobs"))
        if gate.get("kind") == "switch_once":
            text = f"{_dotted(path)} is switch_once, which needs the whole distribution, and a server tells its top"
            found.append(Contradiction(path, text, "name a gate such as top_k, or a teacher model"))
    if (temperature := _get(config, "objective", "temperature")) not in (None, 1, 1.0):
        text = f"objective.temperature is {temperature}, and a server's log-probs are those at temperature 1"
        found.append(Contradiction(("objective", "temperature"), text, "write 1, or name a teacher model"))
    if _get(config, "sampling", "evidence") == "recompute":
        text = "sampling.evidence is recompute, and the answers of a server are kept"
        found.append(Contradiction(("sampling", "evidence"), text, "write keep, or name a teacher model"))
    return found


def _rollouts(config: Mapping[Any, Any], policies: list[_Choice]) -> list[Contradiction]:
    """An engine that nothing is left to write for, or that would have to hold weights that are not here."""
    if not isinstance(_get(config, "sampling", "rollouts"), Mapping):
        return []
    key: _Path = ("sampling", "rollouts")
    writing = {choice.kind: choice for choice in policies if choice.kind in {"student", "teacher"}}
    if not writing:
        _, name = said_by(config, policies[0]) if policies else ((), "the policy")
        text = f"sampling.rollouts is given, and {name} has nothing that one model writes alone"
        return [Contradiction(key, text, "remove it, or write policy: student")]
    teacher = config.get("teacher")
    elsewhere = _get(teacher, "kind") not in {None, "model"} or any(_get(teacher, key) for key in ("engine", "by"))
    if "teacher" in writing and (elsewhere or _get(teacher, "quantization") is not None):
        _, name = said_by(config, writing["teacher"])
        text = f"sampling.rollouts is given, and {name} is to write with a teacher that is no plain model here"
        return [Contradiction(key, text, "remove it, or name a teacher model without quantization")]
    return []


def _served(config: Mapping[Any, Any]) -> list[tuple[str, int]]:
    """The teachers on servers: key, and how many ids each tells."""
    served = {key: one for key, one in _teachers(config).items() if _get(one, "engine") is not None}
    tops = {key: _get(one, "top_logprobs") or 64 for key, one in served.items()}
    return [(key, top) for key, top in tops.items() if isinstance(top, int)]


def _teachers(config: Mapping[Any, Any]) -> dict[str, Any]:
    """The sections of the teachers by their keys; one that is missing is None."""
    by = _get(config, "teacher", "by")
    if isinstance(by, Mapping) and by:
        return {f"teacher.by.{name}": one for name, one in by.items()}
    return {"teacher": config.get("teacher")}


def _rows_without_route(config: Mapping[Any, Any]) -> list[Contradiction]:
    """Rows that have no field which could name a teacher."""
    route = _get(config, "teacher", "route")
    if not isinstance(route, str) or _get(config, "teacher", "by") is None:
        return []
    found = []
    for path, source in _data_sources(config):
        kind, rows = source.get("kind"), {"task": "generated rows", "responses": "stored responses"}
        if kind in rows:
            text = f"{_dotted(path)}.kind is {kind}, and {rows[kind]} have no field teacher.route {route!r}"
            found.append(Contradiction((*path, "kind"), text, "name a file with that field, or one teacher"))
    return found


def _prompt_cache(config: Mapping[Any, Any]) -> list[Contradiction]:
    """Room for the prompts of a teacher whose weights change, or that keeps them itself."""
    kind, megabytes = _get(config, "teacher", "kind"), _get(config, "sampling", "prompt_cache_mb")
    if not megabytes:
        return []
    path, remedy = ("sampling", "prompt_cache_mb"), "write 0, or name a teacher model"
    text = f"sampling.prompt_cache_mb is {megabytes}, and "
    if kind in ("student", "average"):
        return [Contradiction(path, f"{text}teacher.kind is {kind}, whose weights change at every step", remedy)]
    if _get(config, "teacher", "engine") is not None:
        return [Contradiction(path, f"{text}a server keeps its prompts itself", remedy)]
    return []


def _costs(config: Mapping[Any, Any]) -> list[Contradiction]:
    """Costs that cannot be measured, or that are not of the models here."""
    costs = kind_from_text(_get(config, "sampling", "costs"))
    if _get(costs, "kind") != "measured":
        return []
    if _get(config, "train", "gather") == "layer":
        text = "sampling.costs is measured, and train.gather is layer, under which a forward waits for other processes"
        return [Contradiction(("sampling", "costs"), text, "write sampling.costs: sizes, or train.gather: step")]
    given, models = _get(costs, "microseconds"), ["student", *_teachers(config)]
    if isinstance(given, Mapping) and given and not {"student"} < set(given) <= set(models):
        text = f"sampling.costs.microseconds is of {', '.join(map(str, given))}, and the models are {', '.join(models)}"
        remedy = "give the student and each teacher here two numbers, or leave microseconds out and they are measured"
        return [Contradiction(("sampling", "costs", "microseconds"), text, remedy)]
    return []


def _gates(policy: Any, path: _Path) -> Iterator[tuple[_Path, Mapping[str, Any]]]:
    """The gates of a policy and of all inside it."""
    if isinstance(gate := kind_from_text(_get(policy, "gate")), Mapping):
        yield (*path, "gate"), gate
    parts = _get(policy, "parts")
    for index, part in enumerate(parts if isinstance(parts, (list, tuple)) else ()):
        yield from _gates(_get(part, "policy"), (*path, "parts", index, "policy"))

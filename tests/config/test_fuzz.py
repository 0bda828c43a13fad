"""Whatever a file holds, it is read or refused with ConfigError: no other exception, no lost meaning."""

from collections.abc import Callable
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skd.config import METHODS, RunConfig, dump_config
from skd.errors import ConfigError, Problem
from tests.config.conftest import BASE

Load = Callable[..., RunConfig]

relaxed = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

_WORDS = (
    "train lr data student policy kind gate top_k method no 012 1e-5 12:30 2024-13-45 .nan 0b 0x_ hf_a ~ << parts kl"
)
_MARKS = ": { } [ ] , &a *a !!int ! ' \" # | > ? --- ... = % @ - "
FRAGMENTS = st.sampled_from(
    [*_WORDS.split(), *_MARKS.split(), ": ", "- ", "\n", "\n  ", "\t", "\x00", "\ud7ff", "\u202e", "9" * 5000]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.dates(),
    st.sampled_from(["skd", "task"]),
)
KEYS = st.one_of(
    st.sampled_from([*RunConfig.model_fields, "kind", "path", "lr", "gate", "k", "train", "betas", "seed", "beta"]),
    st.sampled_from(["loss", "weights", "target", "parts", "weight", "share", "options", "start", "end", "over"]),
    st.text(max_size=4),
    st.integers(),
)
_KINDS = (
    "student interleaved mixture staged top_k min_prob switch_once custom jsd kl nll veto by_author number schedule"
)
_STEPS = "policy parts objective 0 1 gate k kind loss"
NAMES = st.sampled_from(_KINDS.split())
NEARLY_RIGHT = st.recursive(
    NAMES | SCALARS,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"kind": NAMES}, optional={"parts": st.lists(inner, max_size=3), "gate": inner, "k": inner}
        ),
        st.fixed_dictionaries({"weight": inner, "policy": inner}),
        st.fixed_dictionaries({"share": st.sampled_from([0.5, 1, -1]), "policy": inner}),
        st.fixed_dictionaries({"start": inner}, optional={"end": inner, "over": st.just("response"), "tokens": inner}),
        st.fixed_dictionaries({"loss": inner}, optional={"target": inner, "weights": inner, "teacher": inner}),
    ),
    max_leaves=10,
)
"""Sections of a policy or an objective, in the right places and in wrong ones."""
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def loaded(load: Load, text: str | bytes, *overrides: str) -> tuple[RunConfig | None, tuple[Problem, ...]]:
    try:
        return load(text, *overrides), ()
    except ConfigError as error:
        return None, error.problems


def accepted_or_refused(load: Load, text: str | bytes, *overrides: str) -> None:
    config, problems = loaded(load, text, *overrides)
    if config is not None:
        assert load(dump_config(config)) == config
        return
    assert problems
    for problem in problems:
        assert problem.code.startswith("SKD-C")
        assert problem.place
        assert problem.found
        assert problem.remedy


@relaxed
@given(text=st.lists(FRAGMENTS, max_size=25).map("".join))
def test_fragments_of_yaml(text: str, load: Load) -> None:
    accepted_or_refused(load, text)
    accepted_or_refused(load, BASE + text)


@relaxed
@given(content=st.binary(max_size=60))
def test_bytes(content: bytes, load: Load) -> None:
    accepted_or_refused(load, content)


@relaxed
@given(tree=st.dictionaries(KEYS, TREES, max_size=6))
def test_trees(tree: object, load: Load) -> None:
    accepted_or_refused(load, yaml.safe_dump(tree))
    accepted_or_refused(load, BASE + yaml.safe_dump(tree))


@relaxed
@given(
    part=st.lists(FRAGMENTS, max_size=9).map("".join), tree=st.dictionaries(KEYS, TREES, max_size=4), named=FRAGMENTS
)
def test_parts(part: str, tree: dict[object, object], named: str, load: Load) -> None:
    Path("part.yaml").write_text(part, encoding="utf-8", errors="surrogatepass")
    accepted_or_refused(load, f"include: part.yaml\n{BASE}{yaml.safe_dump(tree) if tree else ''}")
    accepted_or_refused(load, f"include: [part.yaml, {named}]\n{BASE}")
    Path("part.yaml").write_text(BASE + (yaml.safe_dump(tree) if tree else ""))
    accepted_or_refused(load, f"include: part.yaml\n{part}")
    config, problems = loaded(load, f"include: part.yaml\ninclude: {named}\n")
    assert config is None
    assert problems


@relaxed
@given(
    method=st.sampled_from(sorted(METHODS)),
    sections=st.fixed_dictionaries({}, optional={"policy": NEARLY_RIGHT, "objective": NEARLY_RIGHT, "sampling": TREES}),
    override=st.lists(st.sampled_from(_STEPS.split()), min_size=1, max_size=5),
)
def test_sections_over_any_method(method: str, sections: object, override: list[str], load: Load) -> None:
    text = f"method: {method}\n{BASE}{yaml.safe_dump(sections) if sections else ''}"
    accepted_or_refused(load, text)
    accepted_or_refused(load, text, f"{'.'.join(override)}=student")
    accepted_or_refused(load, text, f"{'.'.join(override)}={{kind: jsd, end: 1}}")


@relaxed
@given(
    name=st.lists(KEYS, max_size=4).map(lambda keys: ".".join(map(str, keys))), value=st.lists(FRAGMENTS, max_size=6)
)
def test_overrides(name: str, value: list[str], load: Load) -> None:
    accepted_or_refused(load, BASE, f"{name}={''.join(value)}")
    accepted_or_refused(load, BASE, name)

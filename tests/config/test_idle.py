"""Settings without effect: refused where they were written on purpose, told where a run may go on with them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.check import check
from skd.config import RunConfig, config_of, dump_config, idle_problems, idle_saves, load_config
from skd.errors import ConfigError
from tests.config.conftest import BASE

Load = Callable[..., RunConfig]
Problems = Callable[..., list[str]]

SAMPLED = "sampling: {max_new_tokens: 8, student: {top_p: 1.0}}\n"
SFT = f"method: sft\n{SAMPLED}{BASE}"
LATE = f"train:\n  max_steps: 20\n  save_every: 50\n{BASE}"
OF_THE_DATA = "takes the responses of the data and samples none; leave out what is idle, or choose another"

ON_PURPOSE = [
    (
        SFT,
        (),
        "train.yaml:2: sampling.max_new_tokens, sampling.student have no effect: method sft (policy data_set) "
        f"{OF_THE_DATA} method",
    ),
    (
        f"policy: data_set\nsampling:\n  slots: 8\n{BASE}",
        (),
        f"train.yaml:3: sampling.slots has no effect: policy data_set {OF_THE_DATA} policy",
    ),
    (
        f"method: sft\n{BASE}",
        ("sampling.student.top_p=0.9",),
        "--override sampling.student.top_p: sampling.student has no effect: method sft (policy data_set) takes the",
    ),
    (
        LATE,
        (),
        "train.yaml:3: train.save_every has no effect: it is 50, and train.max_steps 20, so that the last step alone "
        "is saved; write a smaller one, or null for the last step alone",
    ),
    (
        f"train: {{max_steps: 20}}\n{BASE}",
        ("train.save_every=21",),
        "--override train.save_every: train.save_every has no effect: it is 21, and train.max_steps 20, so that",
    ),
    (
        f"policy: {{kind: interleaved, block: 5}}\n{BASE}",
        ("method=on_policy",),
        "--override method: method on_policy has policy student, and the file's policy is interleaved, which goes "
        "first; add policy=student, or take the policy out of the file",
    ),
    (
        f"policy: {{kind: interleaved, gate: {{kind: top_k, k: 3}}}}\n{BASE}",
        ("method=ca_opd",),
        "--override method: method ca_opd has policy.gate min_prob, and the file's policy.gate is top_k, which goes",
    ),
]


@pytest.mark.parametrize(("text", "overrides", "message"), ON_PURPOSE)
def test_an_idle_setting_written_on_purpose_names_both_keys(
    text: str, overrides: tuple[str, ...], message: str, problems: Problems
) -> None:
    found = problems(text, *overrides)
    assert len(found) == 1, found
    assert found[0].startswith(f"error[SKD-C10] {message}")


def told(config: RunConfig) -> list[str]:
    return [problem.line("idle") for problem in idle_problems(config)]


def test_another_method_may_be_written_behind_any_file(load: Load) -> None:
    (line,) = told(load(f"{SAMPLED}{BASE}", "method=sft"))
    assert line == (
        "idle[SKD-C10] sampling: sampling.max_new_tokens, sampling.student have no effect: method sft (policy "
        f"data_set) {OF_THE_DATA} method"
    )


def test_fewer_steps_may_be_written_behind_any_file(load: Load) -> None:
    (line,) = told(load(f"train: {{save_every: 50}}\n{BASE}", "train.max_steps=20"))
    assert line.startswith("idle[SKD-C10] train: train.save_every has no effect: it is 50, and train.max_steps 20, so")


def test_a_part_may_hold_what_is_idle_in_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text(f"{SAMPLED}train: {{save_every: 50}}\n")
    assert len(told(load(f"include: part.yaml\nmethod: sft\ntrain: {{max_steps: 20}}\n{BASE}"))) == 2


def test_python_values_are_told_and_not_refused(load: Load) -> None:
    values = {"method": "sft", "student": "s", "data": {"train": "x"}, "sampling": {"slots": 8}}
    assert len(told(config_of(values))) == 1


def test_the_file_that_a_run_writes_is_no_statement_about_each_of_its_keys(load: Load) -> None:
    config = load(f"{SAMPLED}train: {{save_every: 50}}\n{BASE}", "method=sft", "train.max_steps=20")
    Path("record.yaml").write_text(dump_config(config))
    assert load_config("record.yaml") == config
    with pytest.raises(ConfigError, match=r"--override sampling.slots: sampling.slots has no effect"):
        load_config("record.yaml", ["sampling.slots=8"])


IN_USE = [
    f"{SAMPLED}{BASE}",
    f"method: imitkd\n{SAMPLED}{BASE}",
    f"method: two_stage\n{SAMPLED}{BASE}",
    f"method: seq_kd\n{SAMPLED}{BASE}",
    f"method: supervised_kd\nsampling: {{evidence: recompute}}\n{BASE}",
    f"method: sft\n{BASE}",
    f"train: {{max_steps: 20, save_every: 20}}\n{BASE}",
    f"train: {{max_steps: 20, save_every: null}}\n{BASE}",
    f"train: {{max_steps: 20}}\n{BASE}",
    f"train: {{epochs: 2, save_every: 1000}}\n{BASE}",
]


@pytest.mark.parametrize("text", IN_USE)
def test_what_has_an_effect_or_is_a_default_is_not_idle(text: str, load: Load) -> None:
    assert told(load(text)) == []


def test_saves_after_the_epochs_are_told_once_the_rows_are_counted(load: Load) -> None:
    config = load(f"train: {{epochs: 2, batch_size: 4, save_every: 6}}\n{BASE}")
    assert idle_saves(config, 12) is None
    problem = idle_saves(config, 11) or idle_saves(config, 8)
    assert problem is not None
    assert re.fullmatch(r"is 6, and train\.epochs 2 are 4 steps, so that the last one alone is saved", problem.found)
    assert idle_saves(load(f"train: {{epochs: 2}}\n{BASE}"), 11) is None


def test_the_check_tells_and_goes_on(load: Load) -> None:
    config = load(f"{SAMPLED}{BASE}", "method=sft")
    first = check(config, rows=False, models=False).parts[0]
    assert (first.name, first.state) == ("config", "ok")
    assert first.lines()[1].startswith("  idle[SKD-C10] sampling: ")


@pytest.mark.parametrize(
    ("text", "overrides", "kind"),
    [
        (f"method: on_policy\npolicy: interleaved\n{BASE}", (), "interleaved"),
        (f"policy: {{kind: interleaved, block: 5}}\n{BASE}", ("method=on_policy", "policy=student"), "student"),
        (f"policy: {{kind: interleaved, block: 5}}\n{BASE}", ("method=ca_opd",), "interleaved"),
        (BASE, ("method=on_policy",), "student"),
    ],
)
def test_a_methods_policy_may_be_changed_knowingly(
    text: str, overrides: tuple[str, ...], kind: str, load: Load
) -> None:
    assert load(text, *overrides).policy.kind == kind

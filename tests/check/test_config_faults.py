"""Every fault of the config file, group C of the catalogue, and of the place it names."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.cli import main
from tests.check.bench import GOOD_ROWS, Bench, Fault, row
from tests.check.conftest import MESSAGE, Outcome
from tests.config.conftest import BASE
from tests.config.test_bad_configs import ONE_PROBLEM, WITHOUT_BASE
from tests.config.test_bad_policies import ONE_PROBLEM as POLICIES

FILES: list[tuple[str | bytes, tuple[str, ...]]] = [
    *((f"{lines}\n{BASE}", ()) for lines, _ in (*ONE_PROBLEM, *POLICIES)),
    *((text, ()) for text, _ in WITHOUT_BASE),
    *((BASE, (override,)) for override in ("train.lr=fast", "train.slots=3", "output=&a b", "method=skdd")),
]
"""The files and overrides whose exact messages ``tests/config`` holds."""


@pytest.mark.parametrize("number", range(len(FILES)))
def test_a_wrong_config_has_exit_code_2_and_a_message_of_four_parts(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, overrides = FILES[number]
    Path("train.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    assert main(["check", "train.yaml", *overrides]) == 2
    captured = capsys.readouterr()
    assert captured.err == ""
    first, message, *others = captured.out.splitlines()
    assert first.split() == ["config", "error"]
    match = MESSAGE.fullmatch(message)
    assert match, captured.out
    assert match["code"].startswith("SKD-C")
    assert re.match(r"train\.yaml|--override", match["place"])
    assert "[SKD-C" not in "".join(others)


def link(name: str, target: str) -> Callable[[Bench], object]:
    return lambda bench: os.symlink(target, bench.root / name)


def student_of_a_run(bench: Bench) -> None:
    shutil.move(bench.student, bench.root / "runs/x/student")


FAULTS = {
    "output is a file": Fault(
        lambda b: None,
        2,
        "C12",
        "output 'run.yaml'",
        "run.yaml, which is a file",
        "another output",
        ["output=run.yaml"],
    ),
    "output under a file": Fault(
        lambda b: None, 2, "C12", "output 'run.yaml/x/y'", "leads through", "another output", ["output=run.yaml/x/y"]
    ),
    "output in a circle": Fault(
        link("loop", "loop"),
        2,
        "C12",
        "output 'loop/x'",
        "no usable path (Too many levels",
        "another output",
        ["output=loop/x"],
    ),
    "output too long": Fault(
        lambda b: None, 2, "C12", "output", "File name too long", "another output", [f"output={'x' * 300}"]
    ),
    "output inside the student": Fault(
        lambda b: None,
        2,
        "C12",
        "output 'student/run'",
        "lies in the directory of student",
        "outside it",
        ["output=student/run"],
    ),
    "output is the teacher": Fault(
        lambda b: None,
        2,
        "C12",
        "output 'teacher'",
        "lies in the directory of teacher",
        "outside it",
        ["output=teacher"],
    ),
    "student would be replaced": Fault(
        student_of_a_run,
        2,
        "C12",
        "output 'runs/x'",
        "would replace student in it, and student lies there",
        "another output",
        ["student=runs/x/student"],
    ),
    "data would be replaced": Fault(
        lambda b: (
            shutil.copytree(b.root / "student", b.root / "runs/x/checkpoints")
            and b.rows("x", name="runs/x/checkpoints/r.jsonl")
        ),
        2,
        "C12",
        "output 'runs/x'",
        "would replace checkpoints in it, and data.validation lies there",
        "move what is read",
        ["data.validation=runs/x/checkpoints/r.jsonl"],
        1,
    ),
    "no such built-in model": Fault(
        lambda b: None,
        2,
        "C12",
        '"builtin:number_words/pupil"',
        "is no model of this package",
        "choose one of builtin:",
        ["student=builtin:number_words/pupil"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_place_is_found_and_told(name: str, bench: Bench, look: Callable[..., Outcome]) -> None:
    fault = FAULTS[name]
    fault.damage(bench)
    look("run.yaml", *fault.overrides).assert_told(fault)


EVERYWHERE = {"output": "C12", "data": "D01", "student": "M14", "teacher": "M11"}
"""One fault in each part, by ``damage_everywhere``."""


def damage_everywhere(bench: Bench) -> None:
    bench.json("teacher/config.json", auto_map={})
    (bench.student / "config.json").unlink()
    (bench.root / "train.jsonl").unlink()
    text = (bench.root / "run.yaml").read_text()
    (bench.root / "run.yaml").write_text(text.replace("runs/x", "run.yaml"))


WRONG_CONFIGS: dict[str, tuple[str, list[str], str]] = {
    "a number": ("train.lr=fast", ["C03"], ""),
    "an unknown key at the top": ("foo=1", ["C05"], ""),
    "a contradiction": ("method=sft", [], ""),
    "a bad method": ("method=skdd", ["C05"], ""),
    "the data": ("data.max_prompt_tokens=0", ["C07"], "data"),
    "the data, twice": ("data={train: a, train: b}", ["C04"], "data"),
    "the student": ("student.dtype=float31", ["C05"], "student"),
    "the teacher": ("teacher.path=3", ["C06"], "teacher"),
    "a secret": ("teacher.revision=hf_abcdefghijklmnopqrstuvwxyz012345", ["C11"], "teacher"),
    "the output": ("output=", ["C06"], "output"),
}


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_a_wrong_config_hides_only_the_section_it_is_in(name: str, bench: Bench, look: Callable[..., Outcome]) -> None:
    damage_everywhere(bench)
    override, codes, hidden = WRONG_CONFIGS[name]
    outcome = look("run.yaml", override, "train.seed=-1")
    assert outcome.exit == 2
    others = [code for part, code in EVERYWHERE.items() if part != hidden]
    assert sorted(match["code"][4:] for match in outcome.messages) == sorted([*codes, "C13", *others])


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_a_wrong_config_brings_no_problem_of_another_part(
    name: str, bench: Bench, look: Callable[..., Outcome]
) -> None:
    """Defaults in the place of what is wrong are not held against rows and models: 4 rows are enough for the batch."""
    bench.rows(*GOOD_ROWS[:4])
    override, codes, _ = WRONG_CONFIGS[name]
    outcome = look("run.yaml", override, "train.seed=-1")
    assert sorted(match["code"][4:] for match in outcome.messages) == sorted([*codes, "C13"])


def test_a_wrong_config_does_not_hide_the_rows_as_ids(bench: Bench, look: Callable[..., Outcome]) -> None:
    bench.rows(*GOOD_ROWS, row("t2 " * 20))
    codes = [match["code"] for match in look("run.yaml", "train.seed=-1").messages]
    assert codes == ["SKD-C13", "SKD-D08"]


def parts_of(outcome: Outcome) -> list[list[str]]:
    return [line.split()[:2] for line in outcome.out.splitlines() if line[0] != " "]


@pytest.mark.parametrize("text", ["{student: [\n", "- student: [\n", "nothing but: a: b\n"])
def test_a_file_without_sections_leaves_the_machine_to_look_at(
    text: str, bench: Bench, look: Callable[..., Outcome]
) -> None:
    (bench.root / "run.yaml").write_text(text)
    assert parts_of(look("run.yaml")) == [["config", "error"], ["environment", "ok"]]


BROKEN = """# a file that is no YAML, in two places
method: skd
teacher: teacher
student: {path: student, dtype: float32
train:
  lr: fast
  seed: -1
sampling: {max_new_tokens: 8, slots: &many 4}
data: {train: train.jsonl, max_prompt_tokens: 16}
outptu: runs/x
"""


def test_of_a_file_that_is_no_yaml_every_section_is_looked_at(bench: Bench, look: Callable[..., Outcome]) -> None:
    (bench.root / "run.yaml").write_text(BROKEN)
    (bench.root / "train.jsonl").unlink()
    bench.json("teacher/config.json", auto_map={})
    outcome = look("run.yaml")
    assert outcome.exit == 2
    found = [(message["code"], message["place"]) for message in outcome.messages]
    assert found[:5] == [
        ("SKD-C02", "run.yaml:5:1"),
        ("SKD-C03", "run.yaml:6"),
        ("SKD-C13", "run.yaml:7"),
        ("SKD-C09", "run.yaml:8"),
        ("SKD-C05", "run.yaml:10"),
    ]
    assert [code for code, _ in found[5:]] == ["SKD-D01", "SKD-M11"]


def test_training_is_refused_with_everything_at_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    damage_everywhere(bench)
    assert main(["train", "run.yaml", "train.seed=-1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line[5:14] for line in lines) == sorted(f"[SKD-{code}]" for code in ["C13", *EVERYWHERE.values()])

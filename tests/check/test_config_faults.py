"""Every fault of the config file, group C of the catalogue, and of the place it names."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.cli import main
from tests.check.bench import Bench, Fault
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
    assert captured.out == ""
    match = MESSAGE.fullmatch(captured.err.rstrip("\n"))
    assert match, captured.err
    assert match["code"].startswith("SKD-C")
    assert re.match(r"train\.yaml|--override", match["place"])


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

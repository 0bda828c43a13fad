"""The mutant run tells killed, surviving and outdated mutants apart, and refuses to start from failing tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.findings import ROOT
from scripts.mutant_table import MUTANTS
from scripts.mutants import Mutant, main, run

SOURCE = "def double(x):\n    return x + x\n\n\ndef unused(x):\n    return x - 1\n"
TEST = "from toy import double\n\n\ndef test_double():\n    assert double(3) == 6\n"


def tree(root: Path, test: str = TEST) -> Path:
    (root / "src").mkdir()
    (root / "tests").mkdir()
    (root / "src/toy.py").write_text(SOURCE, encoding="utf-8")
    (root / "tests/test_toy.py").write_text(test, encoding="utf-8")
    return root


def mutant(old: str, new: str) -> Mutant:
    return Mutant("planted", "src/toy.py", old, new, ("tests/test_toy.py",))


def test_killed_surviving_and_outdated_mutants_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = [
        mutant("x + x", "x - x"),
        mutant("x - 1", "x + 1"),
        mutant("return x + x", "return x +"),
        mutant("y + y", "y - y"),
        mutant("x", "z"),
    ]
    assert main(tree(tmp_path), planted) == 1
    baseline, *outcomes, closing = capsys.readouterr().out.splitlines()
    assert baseline.startswith("passed")
    assert [outcome.split()[0] for outcome in outcomes] == ["killed", "SURVIVED", "BROKEN", "BROKEN", "BROKEN"]
    assert outcomes[1].endswith("tests/test_toy.py passed all the same")
    assert outcomes[3].endswith("occurs 0 times in src/toy.py; bring the mutant up to date")
    assert outcomes[4].endswith("occurs 5 times in src/toy.py; bring the mutant up to date")
    assert closing == "mutants: 1 of 5 killed"
    assert (tmp_path / "src/toy.py").read_text(encoding="utf-8") == SOURCE


def test_killing_all_passes_the_run(tmp_path: Path) -> None:
    assert main(tree(tmp_path), [mutant("x + x", "x - x")]) == 0


def test_failing_tests_are_no_place_to_start_from(tmp_path: Path) -> None:
    outcomes = list(run(tree(tmp_path, TEST.replace("6", "7")), [mutant("x + x", "x - x")]))
    assert [outcome.state for outcome in outcomes] == ["BROKEN"]


@pytest.mark.parametrize("entry", MUTANTS, ids=lambda entry: entry.name)
def test_every_mutant_of_the_table_still_applies(entry: Mutant) -> None:
    assert (ROOT / entry.path).read_text(encoding="utf-8").count(entry.old) == 1
    assert entry.old != entry.new
    assert all((ROOT / test.partition("::")[0]).exists() for test in entry.tests)

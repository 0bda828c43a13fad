"""The rules of whole files: each planted version, template and line of SECURITY.md is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.findings import ROOT
from scripts.security_files import FLOORS, check_files
from skd.check.environment import MINIMUM

READ = ("pyproject.toml", "constraints.txt", "SECURITY.md", "src/skd/check/environment.py", "src/skd/report", "scripts")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the check reads, to be harmed."""
    for name in READ:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, target)  # type: ignore[operator]
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    return tmp_path


def rules(root: Path) -> list[str]:
    return sorted({finding.rule for finding in check_files(root)})


def test_the_tree_is_clean(copy: Path) -> None:
    assert [str(finding) for finding in check_files(ROOT)] == []
    assert rules(copy) == []


def test_the_floors_are_those_of_the_check() -> None:
    assert {package: MINIMUM[package] for package in FLOORS} == FLOORS


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        text = (root / file).read_text(encoding="utf-8")
        assert old in text
        (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return harm


TEMPLATE, BASE = "src/skd/report/templates/run.html", "src/skd/report/templates/base.html"
PLANTED: list[tuple[str, Callable[[Path], None]]] = [
    ("version", replace("pyproject.toml", '"torch>=2.10"', '"torch>=2.9"')),
    ("version", replace("pyproject.toml", '"jinja2>=3.1.6"', '"jinja2"')),
    ("version", replace("constraints.txt", "torch==2.13.0", "torch==2.5.1")),
    ("version", replace("src/skd/check/environment.py", '"transformers": (5, 3)', '"transformers": (4, 57)')),
    ("page", replace("src/skd/report/page.py", "default-src 'none'", "default-src *")),
    ("page", replace(BASE, "Content-Security-Policy", "X-Policy")),
    *(
        ("page", replace(TEMPLATE, "{% extends", f"{line}\n{{% extends"))
        for line in (
            "{{ response | safe }}",
            "{% autoescape false %}",
            '<img src="https://example.org/x.png">',
            "<a href='javascript:x()'>",
            "<p onclick=x()>",
            "<iframe>",
        )
    ),
    ("page", lambda root: (root / "src/skd/report/templates/new.js").write_text("box.innerHTML = text;") and None),
    ("page", lambda root: (root / "src/skd/report/templates/new.js").write_text("fetch(place)") and None),
    ("page", lambda root: (root / "src/skd/report/templates/new.css").write_text("@import 'x.css'") and None),
    ("threat-model", replace("SECURITY.md", "## Threat model", "## Model")),
    ("threat-model", replace("SECURITY.md", "| 7 | YAML", "| 8 | YAML")),
    ("threat-model", replace("SECURITY.md", "check `terminal`", "check `nothing-known`")),
    ("threat-model", replace("SECURITY.md", "check `terminal`; ", "")),
    ("threat-model", replace("SECURITY.md", "tests/test_text.py", "tests/test_texts.py")),
    ("threat-model", lambda root: (root / "SECURITY.md").unlink()),
]


@pytest.mark.parametrize("number", range(len(PLANTED)))
def test_each_planted_fault_is_found(number: int, copy: Path) -> None:
    rule, harm = PLANTED[number]
    harm(copy)
    assert rules(copy) == [rule]

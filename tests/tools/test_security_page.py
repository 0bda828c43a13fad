"""SECURITY.md has all sixteen rules, and what holds each of them is there."""

import ast
import re
from pathlib import Path

import pytest

from scripts.findings import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
RULES = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
CHECK = (ROOT / "scripts" / "check_security.py").read_text(encoding="utf-8")


def names_of_the_check():
    """Every rule that the check can find: the texts in it that are one word."""
    texts = [node.value for node in ast.walk(ast.parse(CHECK)) if isinstance(node, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"[a-z-]+", text)}


def test_there_are_sixteen_rules_and_a_threat_model():
    assert [int(number) for number, _, _ in RULES] == list(range(1, 17))
    for heading in ("## Threat model", "**Trusted:**", "**Untrusted:**", "## Limits", "## Reporting"):
        assert heading in PAGE


@pytest.mark.parametrize("number", range(16))
def test_what_holds_a_rule_is_there(number):
    held = RULES[number][2]
    files = re.findall(r"tests/[\w/]+(?:\.py)?", held)
    assert files, "every rule has a test"
    assert all(Path(ROOT, file).exists() for file in files)
    if "check `" in held:
        named = re.findall(r"`([a-z-]+)`", held.partition("check ")[2].partition(";")[0])
        assert set(named) <= names_of_the_check()

"""Security rules of whole files: oldest versions, templates of pages, and what SECURITY.md says of all sixteen rules.

Part of ``scripts.check_security``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.findings import Finding

__all__ = ["check_files"]

FLOORS: Mapping[str, tuple[int, ...]] = {"torch": (2, 10), "transformers": (5, 3), "jinja2": (3, 1, 6)}
"""Oldest versions without known holes that untrusted input could use."""

_IN_TEMPLATES: Mapping[str, str] = {
    r"\|\s*safe\b": "takes text for HTML as it is; let the template escape it",
    r"autoescape\s+false": "switches escaping off",
    r"""\b(?:src|href|action|poster)\s*=\s*["']?\s*(?:https?:|//|javascript:|data:text)""": "loads what is outside",
    r"<[^>{]*\son[a-z]+\s*=": "has code in an attribute, which the page's policy forbids",
    r"<(?:iframe|object|embed|form|base|link)\b": "is an element that could load or send something",
    r"@import|url\(\s*['\"]?(?:https?:|//)": "loads a style from outside",
}
_IN_SCRIPTS: Mapping[str, str] = {
    r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write)\b": "makes markup of text; use textContent",
    r"\beval\s*\(|\bnew\s+Function\b": "runs text as code",
    r"\b(?:fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts)\b": "makes a request",
}
_POLICY = ("Content-Security-Policy", "default-src 'none'")
_HEADINGS = ("## Threat model", "**Trusted:**", "**Untrusted:**", "## Limits", "## Reporting")
_ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
_NUMBER_OF_RULES = 16


def check_files(root: Path) -> Iterator[Finding]:
    """Findings of all rules of this module in a repository."""
    yield from _versions(root)
    yield from _pages(root)
    yield from _the_page(root)


def _versions(root: Path) -> Iterator[Finding]:
    """Rule 5: what is installed, what is pinned and what ``skd check`` accepts are new enough."""
    sources = {
        "pyproject.toml": r'^\s*"{}>=([\d.]+)"',
        "constraints.txt": r"^{}==([\d.]+)",
        "src/skd/check/environment.py": r'"{}": \(([\d, ]+)\)',
    }
    for file, pattern in sources.items():
        text = _text(root / file)
        for package, floor in FLOORS.items():
            found = re.findall(pattern.format(package), text, re.MULTILINE | re.IGNORECASE)
            if not found or any(_numbers(version) < floor for version in found):
                wanted = ".".join(map(str, floor))
                yield Finding(file, 1, "version", f"{package} must be {wanted} or newer, and is {found or 'not there'}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _pages(root: Path) -> Iterator[Finding]:
    """Rule 11: templates escape, load nothing, and the page has its content policy."""
    for suffix, banned in (("html", _IN_TEMPLATES), ("css", _IN_TEMPLATES), ("js", _IN_SCRIPTS)):
        for path in sorted((root / "src").rglob(f"*.{suffix}")):
            relative = path.relative_to(root).as_posix()
            for number, line in enumerate(_text(path).splitlines(), 1):
                for pattern, message in banned.items():
                    if re.search(pattern, line, re.IGNORECASE):
                        yield Finding(relative, number, "page", message)
    report = root / "src/skd/report"
    source = _text(report / "page.py") + _text(report / "templates/base.html")
    for text in _POLICY:
        if text not in source:
            yield Finding("src/skd/report/page.py", 1, "page", f"has no {text}, so that a page could load something")


def _the_page(root: Path) -> Iterator[Finding]:
    """Rule 16: SECURITY.md has the threat model, all rules, and for each what holds it; all of that is there."""
    text, known = _text(root / "SECURITY.md"), _rule_names(root)
    for heading in _HEADINGS:
        if heading not in text:
            yield _of_page(f"lacks {heading!r}")
    rows = _ROW.findall(text)
    if [int(number) for number, _, _ in rows] != list(range(1, _NUMBER_OF_RULES + 1)):
        yield _of_page(f"does not have the rules 1 to {_NUMBER_OF_RULES} in their order")
    for number, _, held in rows:
        names = re.findall(r"`([a-z-]+)`", held.partition("check ")[2].partition(";")[0])
        files = re.findall(r"tests/[\w/]+(?:\.py)?", held)
        if not names or not set(names) <= known:
            yield _of_page(f"rule {number} names no check, or one that is none: {', '.join(names)}")
        if not files or not all((root / file).exists() for file in files):
            yield _of_page(f"rule {number} names no test, or one that is not there")


def _of_page(message: str) -> Finding:
    return Finding("SECURITY.md", 1, "threat-model", message)


def _rule_names(root: Path) -> set[str]:
    """Every rule that the check can find: the texts in its source that are one word."""
    sources = [_text(path) for path in sorted((root / "scripts").glob("*security*.py"))]
    texts = [node.value for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"[a-z-]+", text)}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""

"""What the checks share: a finding, the files to read, and one way to end."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Finding", "finish", "parse", "python_files"]

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""


@dataclass(frozen=True, order=True)
class Finding:
    """One broken rule."""

    path: str
    """Relative to the repository, with forward slashes."""
    line: int
    """From 1."""
    rule: str
    """Short name of the rule, stable."""
    message: str
    """What is wrong and the way out."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


def python_files(root: Path, folders: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Every Python file in ``folders`` as (path relative to root, path), sorted; absent folders are empty."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root).as_posix(), path


def parse(path: Path) -> ast.Module:
    """The syntax tree of a Python file. Raises SyntaxError."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def finish(name: str, findings: Sequence[Finding], checked: int) -> int:
    """Print the findings; 1 when there are any, else 0 (an exit status)."""
    for finding in sorted(findings):
        print(finding, file=sys.stderr)
    print(f"{name}: {checked} checked, {len(findings)} found")
    return 1 if findings else 0

"""Documentation against the tree: links and anchors lead somewhere, named files exist, named Python things are defined.

Read in every Markdown file: relative links, ``#anchors``, paths such as ``src/skd/types.py`` and dotted names such as
``skd.types.Rollout``. Names are resolved from the syntax trees, so nothing is imported. A code block after a line
``<!-- file: PATH -->`` is that file, word for word.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from scripts.findings import ROOT, Finding, finish, parse

__all__ = ["anchors", "check", "resolves"]

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+)\)|!\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_QUOTED = re.compile(r"^<!-- file: (\S+) -->\n+```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"(?<![\w/.(<-])(?:src|tests|scripts|docs|recipes|benchmarks|examples)/[\w./-]*\w")
_NAME = re.compile(r"(?<![\w/.-])skd(?:\.[A-Za-z_]\w*)+(?!/)")
_NOT_NAMES = (".yaml", ".yml", ".json", ".jsonl", ".py", ".md", ".html", ".toml", ".txt")


def _markdown(root: Path) -> list[Path]:
    """Markdown files of the repository itself: not those of environments, runs or hidden folders."""
    inside = [
        path
        for folder in ("docs", "recipes", "src", "examples", "benchmarks")
        for path in (root / folder).rglob("*.md")
    ]
    return sorted([*root.glob("*.md"), *inside])


def _slug(heading: str) -> str:
    """The anchor that a code host gives a heading: lower case, marks dropped, blanks to hyphens."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """Anchors of all headings outside code blocks; repeated headings get -1, -2, ..."""
    seen: dict[str, int] = {}
    found = set()
    for _, line in _prose(text):
        if heading := _HEADING.match(line):
            slug = _slug(heading[1])
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            found.add(f"{slug}-{count}" if count else slug)
    return found


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """(line number, line) of every line outside fenced code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, line


@cache
def _tree(path: Path) -> ast.Module:
    return parse(path)


def _defined(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Names bound by the statements of a module or class."""
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
        elif isinstance(node, ast.Assign):
            targets = [name for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            names.update({name.id: node for name in targets})
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update({alias.asname or alias.name.split(".")[0]: node for alias in node.names})
        elif isinstance(node, (ast.If, ast.Try)):
            names.update(_defined(node.body) | _defined(node.orelse))
    return names


def _lazy_names(tree: ast.Module) -> set[str]:
    """Public names of a package that are given as text: ``__all__`` and the keys of tables of lazy names."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and text.isidentifier()}


def resolves(root: Path, dotted: str) -> bool:
    """Whether ``skd.a.b`` names a module of ``root/src`` or something defined in one."""
    place, rest = root / "src" / "skd", dotted.split(".")[1:]
    while rest and (place / rest[0]).is_dir():
        place, rest = place / rest[0], rest[1:]
    if rest and (place / f"{rest[0]}.py").is_file():
        module, rest = place / f"{rest[0]}.py", rest[1:]
    else:
        module = place / "__init__.py"
    if not rest:
        return module.is_file()
    if not module.is_file():
        return False
    tree = _tree(module)
    names = _defined(tree.body)
    if rest[0] not in names:
        return module.name == "__init__.py" and rest[0] in _lazy_names(tree)
    return len(rest) == 1 or _has_member(names[rest[0]], rest[1])


def _has_member(node: ast.stmt, member: str) -> bool:
    """Whether a class defines the member; what an import brings in is looked up where it is defined, not here."""
    if not isinstance(node, ast.ClassDef):
        return isinstance(node, (ast.Import, ast.ImportFrom))
    return member in _defined(node.body) or bool(node.bases)


def _link_problem(root: Path, page: Path, target: str) -> str | None:
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return None
    where, _, anchor = unquote(target).partition("#")
    path = (page.parent / where).resolve() if where else page
    if not path.exists():
        return f"the link {target} leads nowhere"
    if root.resolve() not in [path, *path.parents]:
        return f"the link {target} leaves the repository"
    if anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
        return f"{where or page.name} has no heading for #{anchor}"
    return None


def _in_line(root: Path, page: Path, line: str) -> Iterator[tuple[str, str]]:
    for match in _PATH.finditer(line):
        if not (root / match[0]).exists():
            yield "path", f"{match[0]} does not exist"
    for match in _NAME.finditer(line):
        if not match[0].endswith(_NOT_NAMES) and not resolves(root, match[0]):
            yield "name", f"{match[0]} is not defined"


def _quotations(root: Path, text: str) -> Iterator[tuple[int, str]]:
    """(line, message) for every code block that should be a file and is not."""
    for match in _QUOTED.finditer(text):
        path = root / match[1]
        if not path.is_file() or path.read_text(encoding="utf-8") != match[2]:
            yield text.count("\n", 0, match.start()) + 1, f"the block is not {match[1]} word for word; copy it again"


def check(root: Path) -> tuple[list[Finding], int]:
    """Findings in all Markdown files of ``root`` and the number of files read."""
    findings, pages = [], _markdown(root)
    for page in pages:
        relative, text = page.relative_to(root).as_posix(), page.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            findings += [Finding(relative, number, *found) for found in _in_line(root, page, line)]
        findings += [Finding(relative, number, "quotation", message) for number, message in _quotations(root, text)]
        for number, line in _prose(text):
            for match in _LINK.finditer(line):
                if problem := _link_problem(root, page, match[1] or match[2]):
                    findings.append(Finding(relative, number, "link", problem))
    return findings, len(pages)


if __name__ == "__main__":
    sys.exit(finish("check_docs", *check(ROOT)))

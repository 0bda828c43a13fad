"""Import direction: which room of ``src/skd`` may import which, and what must not be loaded at import time.

    cli -> quickstart, compare, generate, plan -> train, evaluate, report, live -> check, policies -> objectives,
        responses, engines, ranks -> models -> sampling, data -> recorded, config, rendering, hub, model_files,
        manifest, display, types, files, text, faults, errors

The tables below are the rule; docs/architecture.md gives the reasons.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.findings import ROOT, Finding, finish, parse, python_files

__all__ = ["ALLOWED", "DEFERRED", "check"]

_GROUND = frozenset(
    {
        "config",
        "display",
        "errors",
        "faults",
        "files",
        "hub",
        "manifest",
        "model_files",
        "recorded",
        "rendering",
        "schedule",
        "text",
        "types",
        "versions",
    }
)
_MATERIAL = _GROUND | {"data", "models", "sampling"}
_METHOD = _MATERIAL | {"objectives", "policies"}

ALLOWED: Mapping[str, frozenset[str]] = {
    "errors": frozenset(),
    "faults": frozenset(),
    "files": frozenset(),
    "hub": frozenset({"config", "errors", "model_files"}),
    "text": frozenset({"errors"}),
    "versions": frozenset(),
    "display": frozenset({"text"}),
    "types": frozenset({"errors"}),
    "schedule": frozenset({"errors"}),
    "config": frozenset({"errors"}),
    "manifest": frozenset({"files"}),
    "model_files": frozenset({"config", "errors"}),
    "recorded": frozenset({"config", "errors", "files", "manifest", "types"}),
    "rendering": frozenset({"config", "errors"}),
    "data": _GROUND,
    "sampling": _GROUND,
    "engines": _MATERIAL,
    "models": _GROUND | {"data", "sampling"},
    "objectives": frozenset({"errors", "schedule", "types"}),
    "policies": _MATERIAL,
    "ranks": frozenset({"config", "errors", "faults", "files", "text"}),
    "responses": frozenset({"errors", "files", "types"}),
    "check": _GROUND | {"data", "engines", "models", "objectives", "responses", "sampling"},
    "plan": _GROUND | {"check", "data", "objectives", "sampling"},
    "train": _METHOD | {"check", "engines", "ranks", "responses"},
    "generate": _METHOD | {"engines", "responses", "train"},
    "evaluate": _METHOD | {"ranks"},
    "report": _GROUND,
    "quickstart": _METHOD | {"evaluate", "report", "train"},
    "compare": _METHOD | {"check", "evaluate", "report", "train"},
    "live": _METHOD,
    "entry": frozenset({"config", "errors", "text"}),
    "cli": _METHOD
    | {"check", "compare", "entry", "evaluate", "generate", "live", "plan", "quickstart", "ranks", "report", "train"},
    "__main__": frozenset({"cli"}),
    "__init__": frozenset(),
}
"""Room -> the rooms that it may import. A room may always import itself. There is no cycle."""

DEFERRED: Mapping[str, frozenset[str]] = {
    "engines": frozenset({"policies"}),
    "sampling": frozenset({"models"}),
    "__init__": frozenset(ALLOWED),
}
"""Room -> further rooms that it may import inside a function or for the type checker, not when it is loaded."""

HEAVY = frozenset({"torch", "transformers", "accelerate", "datasets", "matplotlib", "tensorboard", "safetensors"})
"""Packages that take seconds to import."""
LIGHT = frozenset({"__init__", "__main__", "cli", "config", "entry", "errors", "text"})
"""Rooms that ``import skd`` and ``skd --help`` load: at the top of their modules only each other, and nothing heavy."""
NO_MODEL_CLASS = frozenset({"objectives"})
"""Rooms that know tensors only, no model class."""


def _room(relative: str) -> str:
    """``src/skd/train/loop.py`` -> ``train``; ``src/skd/cli.py`` -> ``cli``."""
    first = relative.removeprefix("src/skd/").split("/")[0]
    return first.removesuffix(".py")


def _package(relative: str) -> list[str]:
    """The dotted package a file's relative imports start from."""
    return relative.removeprefix("src/").split("/")[:-1]


def _targets(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    """The dotted modules that an import statement names; names taken from a bare package count as its modules."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    return [f"skd.{alias.name}" for alias in node.names] if module == "skd" else [module]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _imports(tree: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import with whether it is deferred: inside a function, or for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, deferred
        elif isinstance(node, ast.If) and _is_type_checking(node):
            yield from _imports(ast.Module(node.body, []), True)
            yield from _imports(ast.Module(node.orelse, []), deferred)
        else:
            yield from _imports(node, deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def _heavy(room: str, target: str) -> tuple[str, str]:
    return "heavy-import", f"{room} loads {target} when it is imported; import it inside the function that needs it"


def _judge(room: str, target: str, deferred: bool) -> tuple[str, str] | None:
    """(rule, message) when ``room`` may not import the module ``target``, else None."""
    top, _, rest = target.partition(".")
    if top == "skd":
        wanted = rest.split(".")[0]
        if wanted == "__version__" or (deferred and wanted in DEFERRED.get(room, ())):
            return None
        if wanted in ALLOWED[room] | {room}:
            return _heavy(room, target) if room in LIGHT and wanted not in LIGHT and not deferred else None
        if wanted not in ALLOWED:
            return "public-name", f"{room} imports {target} from the package itself; import it from its room"
        allowed = ", ".join(sorted(ALLOWED[room])) or "nothing"
        return "direction", f"{room} imports {wanted}; it may import {allowed}; move the shared part down"
    if top in HEAVY and room in LIGHT and not deferred:
        return _heavy(room, target)
    if top == "transformers" and room in NO_MODEL_CLASS:
        return "model-class", f"{room} imports transformers; pass tensors in instead"
    return None


def check(root: Path) -> tuple[list[Finding], int]:
    """Findings in ``root/src/skd`` and the number of files read."""
    findings, checked = [], 0
    for relative, path in python_files(root, ["src/skd"]):
        checked += 1
        room = _room(relative)
        if room not in ALLOWED:
            findings.append(Finding(relative, 1, "unknown-room", f"{room} is in no table; add it to ALLOWED"))
            continue
        for node, deferred in _imports(parse(path)):
            for target in _targets(node, _package(relative)):
                if broken := _judge(room, target, deferred):
                    findings.append(Finding(relative, node.lineno, *broken))
    return findings, checked


if __name__ == "__main__":
    sys.exit(finish("check_imports", *check(ROOT)))

"""Security rules of single expressions that concern keys, terminals, pages and what is told to others.

Part of ``scripts.check_security``, which walks the tree and applies the exceptions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

__all__ = ["dotted", "keyword", "of_everything", "of_the_package"]

Found = Iterator[tuple[str, str]]

_KEY_NAME = re.compile(r"(\w+_)?(api_?key|access_?key|token|secret|password|passwd|credentials?)")
_KEY_VARIABLE = re.compile(r"(.*_)?(API_?KEY|ACCESS_?KEY|KEY|TOKEN|SECRET|PASSWORD)")
_KEY_VALUE = re.compile(r"(?<![A-Za-z0-9])(sk-|hf_)[A-Za-z0-9_-]{20,}")
_ENVIRONMENT = ("os.environ", "os.environb")
_WHOLE_ENVIRONMENT = frozenset({"items", "values", "copy"})

_TELLING = (
    *("sentry_sdk", "posthog", "analytics", "segment", "mixpanel", "amplitude", "statsd", "datadog", "ddtrace"),
    *("bugsnag", "rollbar", "opentelemetry", "scarf", "newrelic", "google_analytics"),
)
_UPDATES = ("pypi.org/pypi", "pypi.org/simple", "api.github.com/repos", "/releases/latest")
_CONNECTING = ("huggingface_hub", "datasets", "wandb", "trackio", "mlflow")

_PRINTING = frozenset({"print", "echo", "secho"})
_ESCAPING = frozenset({"visible", "dumps"})
"""What control characters do not survive: skd.text.visible, and JSON as ASCII."""
_NUMBER_FORMAT = re.compile(r"[,0-9.]*[,fdeg%]")


def dotted(node: ast.AST, aliases: Mapping[str, str]) -> str:
    """The full dotted name of an expression; what is not a plain name becomes ``?``."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, aliases)}.{node.attr}"
    return "?"


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((found.value for found in call.keywords if found.arg == name), None)


def of_everything(node: ast.AST) -> Found:
    """What no file may have."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if _KEY_VALUE.search(node.value):
            yield "secret", "a text that looks like a key; keys come from the environment"
        if any(place in node.value for place in _UPDATES):
            yield "telemetry", "looks for another release; there is no update check"
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for module in _modules(node):
            if module.split(".")[0] in _TELLING:
                yield "telemetry", f"{module} tells others of the run; trackers that the user names are enough"


def of_the_package(relative: str, node: ast.AST, aliases: Mapping[str, str]) -> Found:
    """What the package does in few places only."""
    if isinstance(node, ast.Call):
        name = dotted(node.func, aliases)
        yield from _printed(node, name, aliases)
        yield from _key_read(name, node.args[0] if node.args else None)
        if name.rpartition(".")[2] == "Markup":
            yield "markup", "text that is taken for HTML as it is; let the template escape it"
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield from _key_read(f"{dotted(node.value, aliases)}.get", node.slice)
    if isinstance(node, ast.ClassDef) and relative.startswith("src/skd/config/"):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                yield from _key_taken(field.target.id, "config key")
    if isinstance(node, ast.FunctionDef) and relative == "src/skd/cli.py":
        for argument in (*node.args.args, *node.args.kwonlyargs):
            yield from _key_taken(argument.arg, "argument")
    if isinstance(node, ast.Module):
        yield from _at_import(node)


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]


def _at_import(tree: ast.Module) -> Found:
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for module in _modules(node):
                if module.split(".")[0] in _CONNECTING:
                    yield "at-import", f"{module} may connect when it is imported; import it where it is used"


def _key_taken(name: str, what: str) -> Found:
    if _KEY_NAME.fullmatch(name):
        yield "secret", f"a {what} for a key would be saved and shown; read it from the environment"


def _key_read(name: str, argument: ast.expr | None) -> Found:
    """A key read from the environment, by its name or with everything else in it."""
    owner, _, last = name.rpartition(".")
    read = (owner in _ENVIRONMENT and last in {"get", "pop", "setdefault", *_WHOLE_ENVIRONMENT}) or name == "os.getenv"
    if not read or last == "setdefault":
        return
    known = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    if last in _WHOLE_ENVIRONMENT or not known or _KEY_VARIABLE.fullmatch(str(getattr(argument, "value", ""))):
        yield "secret", f"{name} may hand on a key; few places read keys, and say why in EXCEPTIONS"


def _printed(call: ast.Call, name: str, aliases: Mapping[str, str]) -> Found:
    """Text on a terminal that may come from a model, a file or a server."""
    owner, _, last = name.rpartition(".")
    stream = last == "write" and owner in {"sys.stdout", "sys.stderr"}
    if (last in _PRINTING or stream) and not all(_safe(argument, aliases) for argument in call.args):
        yield "terminal", f"{name} may show control characters; write visible(...), of skd.text"


def _safe(node: ast.expr, aliases: Mapping[str, str]) -> bool:
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.JoinedStr):
        return all(map(_safe_part, node.values, [aliases] * len(node.values)))
    if isinstance(node, ast.Call):
        last = dotted(node.func, aliases).rpartition(".")[2]
        return last in _ESCAPING or (last == "Text" and all(_safe(argument, aliases) for argument in node.args))
    return False


def _safe_part(part: ast.expr, aliases: Mapping[str, str]) -> bool:
    """A piece of an f-string: constant text, a number by its format, or escaped text."""
    if not isinstance(part, ast.FormattedValue):
        return isinstance(part, ast.Constant)
    form = part.format_spec
    texts = [piece.value for piece in getattr(form, "values", ()) if isinstance(piece, ast.Constant)]
    return _safe(part.value, aliases) or bool(_NUMBER_FORMAT.fullmatch("".join(map(str, texts))))

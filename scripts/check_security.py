"""Security rules that can be read off the syntax tree; SECURITY.md says what they defend.

No pickle, no evaluation of text, no shell, no code loaded by a name from outside, safetensors only, TLS verified, every
network call with a time limit, no open port, HTML escaped, no archive unpacked, no time limit by signal, no key in a
text, no telemetry; in the package itself, files are written, connections are made, keys are read and text is shown
unescaped in few places, and none where a module is imported. Of whole files: oldest versions, templates, SECURITY.md.
A place that needs an exception stands in EXCEPTIONS with its reason; one that no longer needs it is a finding too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from scripts.findings import ROOT, Finding, finish, parse, python_files
from scripts.security_files import check_files
from scripts.security_nodes import dotted, keyword, of_everything, of_the_package

__all__ = ["EXCEPTIONS", "check", "check_source"]

FOLDERS = ("src", "scripts", "benchmarks", "examples", "trust")

EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("scripts/check_security.py", "bind"): "the table of this rule",
    ("src/skd/__init__.py", "import"): "the names are those of a table in the same file",
    ("src/skd/data/own_tasks.py", "import"): "a task file that the user names to the command",
    ("src/skd/train/build.py", "import"): "a gate or loss of the config file, whose author is trusted",
    ("src/skd/evaluate/comet.py", "write"): "a temporary directory of its own",
    ("src/skd/evaluate/samples.py", "write"): "appended to a name of its own, renamed when it is whole",
    ("src/skd/files.py", "write"): "one of the two writers: a new file, which gets its name when it is whole",
    ("src/skd/models/directory.py", "write"): "inside a directory that gets its name when it is whole",
    ("src/skd/rendering.py", "write"): "the pipe to the parent",
    ("src/skd/text.py", "write"): "the other writer: beside, then renamed",
    ("src/skd/train/log.py", "write"): "a log: appended, repaired when the run is resumed",
    ("src/skd/engines/child.py", "write"): "what a child says, in a private directory that goes with it",
    ("src/skd/engines/transport.py", "network"): "the one client of a teacher's server",
    ("scripts/security_nodes.py", "telemetry"): "the table of this rule",
    ("src/skd/compare/command.py", "terminal"): "a table of names that the plan limits to letters, digits, _, - and .",
    ("src/skd/config/credentials.py", "secret"): "reads all keys to take them out of messages",
    ("src/skd/engines/transport.py", "secret"): "SKD_TEACHER_TOKEN, for the header of each request",
    ("src/skd/evaluate/code.py", "secret"): "the names are those of a table in the same file, without keys",
    ("src/skd/hub.py", "secret"): "HF_TOKEN, for the client of the Hub",
    ("src/skd/live.py", "terminal"): "skd.display makes each piece visible",
    ("src/skd/quickstart/story.py", "terminal"): "numbers and texts of its own, and the path that the user gave",
    ("src/skd/train/launched.py", "secret"): "variables of accelerate, named beside the call, without keys",
    ("src/skd/ranks/meeting.py", "secret"): "four variables of the launcher, named beside the call",
    ("src/skd/rendering.py", "secret"): "hands on all but the keys",
    ("src/skd/report/page.py", "markup"): "style and script of the package, and JSON with < escaped",
    ("src/skd/report/plots.py", "markup"): "written by ElementTree, which escapes",
    ("src/skd/train/progress.py", "terminal"): "plain text is made visible here; rich text is where it is made",
    ("src/skd/train/trackers.py", "secret"): "whether WANDB_API_KEY is there",
    ("trust/fuzz.py", "secret"): "a planted key",
    ("trust/fuzz.py", "alarm"): "no handler is set: the kernel ends the child, whatever it is doing",
    ("src/skd/rendering.py", "alarm"): "no handler is set: the kernel ends the child, whatever it is doing",
}
"""(path, rule) -> why the rule may be broken there."""

_PICKLE = "reads or writes pickle, which runs code on loading; use safetensors and JSON"
_TEXT = "runs text as code; parse it instead"
_SHELL = "goes through a shell; use subprocess.run with a list"
_IMPORT = "loads code by a name that may come from outside; write an import statement"
_ARCHIVE = "writes wherever the archive says; copy named members to names of your own"
_ALARM = "stops no native code and fails off the main thread; use a process that can be killed"
_TLS = "accepts any certificate; leave it out"
_WAITS = "can wait for ever; use a client with timeout="

BANNED_MODULES: Mapping[str, str] = dict.fromkeys(
    [
        "pickle",
        "cPickle",
        "_pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "shelve",
        "torch.distributed.checkpoint",
    ],
    _PICKLE,
)

BANNED_CALLS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(["eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"], ("eval", _TEXT)),
    **dict.fromkeys(["__import__", "ast.literal_eval", "code.interact"], ("eval", _TEXT)),
    **dict.fromkeys(["torch.load", "torch.save", "torch.jit.load", "torch.hub.load"], ("pickle", _PICKLE)),
    **dict.fromkeys(["pandas.read_pickle"], ("pickle", _PICKLE)),
    **dict.fromkeys(["os.system", "os.popen", "pty.spawn"], ("shell", _SHELL)),
    **dict.fromkeys(["subprocess.getoutput", "subprocess.getstatusoutput"], ("shell", _SHELL)),
    **dict.fromkeys(["torch.package.PackageImporter", "torch.serialization.load"], ("pickle", _PICKLE)),
    **dict.fromkeys(["runpy.run_path", "runpy.run_module"], ("import", _IMPORT)),
    **dict.fromkeys(["importlib.util.spec_from_file_location"], ("import", _IMPORT)),
    **dict.fromkeys(["signal.alarm", "signal.setitimer"], ("alarm", _ALARM)),
    **dict.fromkeys(["ssl._create_unverified_context"], ("tls", f"an unverified context {_TLS}")),
    **dict.fromkeys(["requests.Session", "requests.session", "urllib.request.urlretrieve"], ("timeout", _WAITS)),
    "tempfile.mktemp": ("temporary", "names a file that another process may make first; use a temporary directory"),
    "shutil.unpack_archive": ("archive", _ARCHIVE),
}
"""Full dotted name -> (rule, message)."""

BANNED_ENDINGS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(["sympify", "parse_expr", "parse_latex"], ("sympy", "evaluates text as Python; grade in a worker")),
    **dict.fromkeys(["read_pickle", "to_pickle", "register_for_checkpointing"], ("pickle", _PICKLE)),
    **dict.fromkeys(["extractall"], ("archive", _ARCHIVE)),
    **dict.fromkeys(["exec_module"], ("import", _IMPORT)),
    **dict.fromkeys(["save_state", "load_state"], ("pickle", "accelerate's state is pickle; use skd.train.checkpoint")),
}
"""Last name of a call, whatever it is called on -> (rule, message)."""

_UNSAFE_YAML = frozenset({"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"})
_UNSAFE_LOADERS = frozenset({"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"})
_REMOTE_CODE = frozenset({"from_pretrained", "from_config", "load_dataset", "load_dataset_builder"})
_MODEL_ENDINGS = ("Model", "ForCausalLM", "ForSequenceClassification", "LMHeadModel")
_HTTP_VERBS = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "request", "stream", "send"})
_WAITING = frozenset(
    {
        "httpx.Client",
        "httpx.AsyncClient",
        "aiohttp.ClientSession",
        "urllib3.PoolManager",
        "urllib.request.urlopen",
        "http.client.HTTPConnection",
        "http.client.HTTPSConnection",
        "socket.create_connection",
    }
)
"""Calls that need a time limit of their own."""
_EVERYWHERE = frozenset({"0.0.0.0", "::"})
_CLIENTS = ("socket", "http", "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "websockets")
_PROCESSES = frozenset({"run", "call", "check_call", "check_output", "Popen"})


def _aliases(tree: ast.AST) -> dict[str, str]:
    """Local name -> full dotted name, for every import in the file."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _is_literal(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _banned(name: str) -> Iterator[tuple[str, str]]:
    if name in BANNED_CALLS:
        yield BANNED_CALLS[name]
    elif (last := name.rpartition(".")[2]) in BANNED_ENDINGS:
        yield BANNED_ENDINGS[last]
    if name.startswith("yaml.") and name.removeprefix("yaml.") in _UNSAFE_YAML:
        yield "yaml", f"{name} builds Python objects; use yaml.safe_load or a SafeLoader"


def _options(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    """Keyword values that no call may have."""
    if (shell := keyword(call, "shell")) is not None and not _is_literal(shell, False):
        yield "shell", f"shell= {_SHELL}"
    if (verify := keyword(call, "verify")) is not None and _is_literal(verify, False):
        yield "tls", "verify=False accepts any certificate; leave it out"
    pickled = keyword(call, "allow_pickle")
    if pickled is not None and not _is_literal(pickled, False):
        yield "pickle", f"allow_pickle {_PICKLE}"
    weights_only = keyword(call, "weights_only")
    if weights_only is not None:
        yield "pickle", f"weights_only belongs to a call that {_PICKLE}"
    remote = keyword(call, "trust_remote_code")
    if remote is not None and not _is_literal(remote, False):
        yield "remote-code", f"{name} may run code of a model repository; write trust_remote_code=False"


def _loading(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    """What calls that load models, tokenizers and data must say."""
    owner, _, last = name.rpartition(".")
    if last in _REMOTE_CODE and keyword(call, "trust_remote_code") is None:
        yield "remote-code", f"{last} without trust_remote_code asks or runs; write trust_remote_code=False"
    is_model = owner.rpartition(".")[2].endswith(_MODEL_ENDINGS) or "AutoModel" in owner
    if last == "from_pretrained" and is_model and not _is_literal(keyword(call, "use_safetensors"), True):
        yield "safetensors", "a model without use_safetensors=True may come from pickle; write it"


def _network(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    owner, _, last = name.rpartition(".")
    request = owner in {"requests", "httpx"} and last in _HTTP_VERBS
    timeout = keyword(call, "timeout")
    if (request or name in _WAITING) and (timeout is None or _is_literal(timeout, None)):
        yield "timeout", f"{name} can wait for ever; pass timeout="


def _code(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    """Text that becomes code or a command by way of a call that has harmless uses, too."""
    owner, _, last = name.rpartition(".")
    first = call.args[0] if call.args else None
    if last == "eval" and owner and first is not None:
        yield "eval", f"{name} {_TEXT}"
    if name == "importlib.import_module" and not isinstance(first, ast.Constant):
        yield "import", f"{name} {_IMPORT}"
    if owner == "subprocess" and last in _PROCESSES and (_is_text(first) or isinstance(first, ast.JoinedStr)):
        yield "shell", f"{name} with a text {_SHELL}"
    if last == "from_string" and not isinstance(first, ast.Constant):
        yield "template", f"{name} makes a template of data; keep templates in files or constants"


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _template(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    if not name.startswith("jinja2.") or name.rpartition(".")[2] not in {
        "Environment",
        "Template",
        "SandboxedEnvironment",
    }:
        return
    escape = keyword(call, "autoescape")
    if not (_is_literal(escape, True) or (isinstance(escape, ast.Call) and "select_autoescape" in ast.unparse(escape))):
        yield "autoescape", f"{name} puts text into HTML unescaped; write autoescape=True"


def _writes(mode: object) -> bool:
    """Whether an argument of a call that opens is a mode in which it writes."""
    return isinstance(mode, str) and set(mode) <= set("rwaxbt+") and not set(mode).isdisjoint("wax+")


def _writing(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    """Files of the package are written whole, by skd.text or skd.files."""
    owner, _, last = name.rpartition(".")
    direct = last in {"write_text", "write_bytes"} and bool(owner) and not name.startswith("skd.")
    modes = [node.value for node in (*call.args, keyword(call, "mode")) if isinstance(node, ast.Constant)]
    opened = last in {"open", "fdopen"} and any(map(_writes, modes[:2]))
    if direct or opened:
        yield "write", f"{name} may leave half a file, or follow a link; use skd.text.write_text or skd.files"


def _in_call(call: ast.Call, aliases: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    name = dotted(call.func, aliases)
    yield from _banned(name)
    yield from _options(call, name)
    yield from _loading(call, name)
    yield from _network(call, name)
    yield from _code(call, name)
    yield from _template(call, name)


def _in_import(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    for module in modules:
        if message := next(
            (text for banned, text in BANNED_MODULES.items() if f"{module}.".startswith(f"{banned}.")), None
        ):
            yield "pickle", f"{module} {message}"
            return


def _in_attribute(node: ast.Attribute, aliases: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    name = dotted(node, aliases)
    if name.startswith("yaml.") and node.attr in _UNSAFE_LOADERS:
        yield "yaml", f"{name} builds Python objects; use yaml.SafeLoader"
    if name == "ssl.CERT_NONE":
        yield "tls", f"{name} {_TLS}"


def _in_assignment(node: ast.Assign) -> Iterator[tuple[str, str]]:
    names = [target.attr for target in node.targets if isinstance(target, ast.Attribute)]
    if _is_literal(node.value, False) and {"verify", "check_hostname"} & set(names):
        yield "tls", f"{names[0]} = False {_TLS}"


def _in_package(node: ast.AST, aliases: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What the package does in few places only."""
    if isinstance(node, ast.Call):
        yield from _writing(node, dotted(node.func, aliases))
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            if any(f"{module}.".startswith(f"{client}.") for client in _CLIENTS):
                yield "network", f"{module} makes connections; use the client in skd.engines.transport"


def _in_constant(node: ast.Constant) -> Iterator[tuple[str, str]]:
    if isinstance(node.value, str) and node.value in _EVERYWHERE:
        yield "bind", f"{node.value} opens a port to the whole network; bind 127.0.0.1"


def check_source(relative: str, tree: ast.AST) -> list[Finding]:
    """Findings in one file's syntax tree, exceptions not yet applied."""
    aliases, findings = _aliases(tree), []
    for node in ast.walk(tree):
        found: Iterator[tuple[str, str]] = iter(())
        if isinstance(node, ast.Call):
            found = _in_call(node, aliases)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found = _in_import(node)
        elif isinstance(node, ast.Attribute):
            found = _in_attribute(node, aliases)
        elif isinstance(node, ast.Assign):
            found = _in_assignment(node)
        elif isinstance(node, ast.Constant):
            found = _in_constant(node)
        found = chain(found, of_everything(node))
        if relative.startswith("src/"):
            found = chain(found, _in_package(node, aliases), of_the_package(relative, node, aliases))
        findings += [Finding(relative, getattr(node, "lineno", 1), rule, message) for rule, message in found]
    return findings


def check(root: Path, exceptions: Mapping[tuple[str, str], str] = EXCEPTIONS) -> tuple[list[Finding], int]:
    """Findings in ``root`` less the exceptions, plus exceptions that nothing needs; and the number of files read."""
    files = list(python_files(root, FOLDERS))
    findings = [finding for relative, path in files for finding in check_source(relative, parse(path))]
    needed = {(finding.path, finding.rule) for finding in findings}
    stale = [
        Finding(path, 1, "stale-exception", f"nothing breaks {rule} here; remove it from EXCEPTIONS")
        for path, rule in exceptions.keys() - needed
    ]
    return [finding for finding in findings if (finding.path, finding.rule) not in exceptions] + stale, len(files)


if __name__ == "__main__":
    found, checked = check(ROOT)
    sys.exit(finish("check_security", [*found, *check_files(ROOT)], checked))

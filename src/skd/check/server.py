"""Models outside this process: a teacher's server and an engine's environment are asked before anything is spent."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from skd.check.report import Part
from skd.config import RolloutsConfig, ServerTeacher
from skd.errors import ConfigError, Problem

if TYPE_CHECKING:
    from skd.check.models import Words

__all__ = ["check_rollouts", "check_server"]

_SEARCH = "import importlib.util; raise SystemExit(importlib.util.find_spec('vllm') is None)"
_SECONDS = 120.0
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


def check_server(key: str, teacher: ServerTeacher, words: Words) -> Part:
    """Version, model, log-probs and vocabulary of the server at a key of the config, with what is wrong noted."""
    from skd.engines import server_of

    part = Part(key)
    with part.noting():
        found = server_of(teacher).connect(words.tokenizer, words.vocab_size)
        part.facts += [f"{found.name} at {teacher.url}", f"context {found.context:,}"]
        part.facts.append(f"{teacher.top_logprobs:,} log-probs per token")
    address = urlsplit(teacher.url)
    if address.scheme == "http" and address.hostname not in _THIS_MACHINE:
        text = "sends its key and the data in the clear to another machine"
        part.warnings.append(Problem("SKD-R16", f"{key}.url", text, "use https, unless the network is your own"))
    return part


def check_rollouts(rollouts: RolloutsConfig) -> Part:
    """Whether the python of an engine runs and finds vLLM, and the engine has a place, with what is wrong noted."""
    from skd.engines.transfer import TRANSFERS
    from skd.models.arguments import device_of

    part = Part("rollouts")
    with part.noting():
        _require_vllm(rollouts.python)
        part.facts.append(f"vLLM of {rollouts.python}")
    with part.noting():
        TRANSFERS[rollouts.transfer].place(device_of("auto"))
    return part


def _require_vllm(python: str) -> None:
    try:
        done = subprocess.run([python, "-I", "-c", _SEARCH], capture_output=True, timeout=_SECONDS, check=False)
        found = "runs, and finds no package vllm" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        found = f"{python} does not run ({type(error).__name__})"
    if found:
        remedy = "write the path of the python of an environment that vLLM is installed in"
        raise ConfigError(Problem("SKD-V01", "sampling.rollouts.python", found, remedy))

"""Keys of services do not belong into a config file: it is saved with the run, printed and shared."""

from __future__ import annotations

import os
import re

__all__ = ["hidden", "is_secret", "is_secret_variable", "quoted", "variable_of_key", "variable_of_value"]

_KEY_NAMES = {
    "wandb": "WANDB_API_KEY",
    "hf": "HF_TOKEN",
    "hub": "HF_TOKEN",
    "huggingface": "HF_TOKEN",
    "openai": "OPENAI_API_KEY",
    "trackio": "HF_TOKEN",
    "mlflow": "MLFLOW_TRACKING_TOKEN",
}
_KEY = re.compile(r"(?:(\w+?)_)?(?:api_?key|access_?key|key|token|secret|password)", re.IGNORECASE)
_SECRET_NAMES = frozenset(
    {"api_key", "apikey", "access_token", "auth_token", "secret", "password", "token", "access_key"}
)
# Bare prefixes count for the whole value only: a path such as hf_models/gemma is no token.
_WHOLE = re.compile(r"\s*(sk-|hf_)[\w-]*\s*", re.ASCII)
_INSIDE = re.compile(r"(?<![A-Za-z0-9])(sk-|hf_)[A-Za-z0-9_-]{20,}")
_VARIABLE = re.compile(r"(.*_)?(API_?KEY|ACCESS_?KEY|KEY|TOKEN|SECRET|PASSWORD)", re.IGNORECASE)
_SHORTEST_SECRET = 8
"""Shorter values of such variables are taken for switches, as in SOME_TOKEN=1."""


def variable_of_key(key: str) -> str | None:
    """The environment variable that replaces a config key such as ``wandb_key``; None for other keys."""
    match = _KEY.fullmatch(key.replace("-", "_"))
    if match is None:
        return None
    owner = (match.group(1) or "").lower()
    if owner in _KEY_NAMES:
        return _KEY_NAMES[owner]
    return key.replace("-", "_").upper() if match.group(0).lower() in _SECRET_NAMES else None


def variable_of_value(value: str) -> str | None:
    """The environment variable for a value that looks like a key (``sk-...``, ``hf_...``); None for other text."""
    match = _WHOLE.fullmatch(value) or _INSIDE.search(value)
    if match is None:
        return None
    return "HF_TOKEN" if match.group(1) == "hf_" else "OPENAI_API_KEY"


def is_secret(text: str) -> bool:
    """Whether ``text`` must not be shown."""
    return variable_of_value(text) is not None


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable holds a key by its name, such as ``HF_TOKEN`` or ``WANDB_API_KEY``."""
    return _VARIABLE.fullmatch(name) is not None


def hidden(text: str) -> str:
    """``text`` without the values of the environment variables that hold keys, and without what looks like a key."""
    values = {value for name, value in os.environ.items() if is_secret_variable(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "(not shown)")
    return _INSIDE.sub("(not shown)", text)


def quoted(text: str, limit: int = 60) -> str:
    """``text`` in double quotes for a message: hidden characters as escapes, cut when long, secrets never shown."""
    if is_secret(text):
        return "(a value not shown here)"
    shown = repr(text[:limit])[1:-1]
    return f'"{shown}…"' if len(text) > limit else f'"{shown}"'

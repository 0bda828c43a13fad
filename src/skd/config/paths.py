"""Where the models of a config lie."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from skd.config.credentials import quoted
from skd.errors import ConfigError, Problem

__all__ = ["BUILTIN", "resolve_model_path"]

BUILTIN = "builtin:"
_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")


def resolve_model_path(path: str) -> str:
    """The directory of ``builtin:TASK/ROLE`` inside the package; any other path or Hub id as it is.

    Raises ConfigError (SKD-C12) when the package holds no such model.
    """
    if not path.startswith(BUILTIN):
        return path
    assets = Path(str(files("skd"))) / "quickstart" / "assets"
    name = path.removeprefix(BUILTIN)
    if _NAME.fullmatch(name) and (assets / name / "config.json").is_file():
        return str(assets / name)
    known = sorted(f"{BUILTIN}{file.parent.relative_to(assets).as_posix()}" for file in assets.glob("*/*/config.json"))
    found = "is no model of this package"
    raise ConfigError(
        Problem("SKD-C12", quoted(path), found, f"choose one of {', '.join(known) or '(this build ships none)'}")
    )

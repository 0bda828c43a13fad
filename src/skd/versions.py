"""Versions of the software that a number rests on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["commit", "versions"]

_PACKAGES = ("skd", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy")


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, the packages and ``more`` packages, by name; a package run from its sources says so."""
    return {"python": platform.python_version(), **{name: _version(name) for name in (*_PACKAGES, *more)}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def commit() -> str | None:
    """The commit of the source tree that the package runs from; None for an installed package."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        if git.is_file():
            git = Path(git.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        common = git / (git / "commondir").read_text(encoding="utf-8").strip() if (git / "commondir").exists() else git
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (common / name).is_file():
            return (common / name).read_text(encoding="utf-8").strip()
        packed = (common / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, UnicodeDecodeError):
        return None

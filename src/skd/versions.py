"""Versions of the software that a number rests on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = ("skd", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Python's and the packages' versions by name; a package run from its sources says so."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"

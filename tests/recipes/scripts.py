"""The scripts among the recipes, which are no part of the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

RECIPES = Path(__file__).parents[2] / "recipes"


def script(path: str) -> ModuleType:
    """The module of ``recipes/PATH``."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), RECIPES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module

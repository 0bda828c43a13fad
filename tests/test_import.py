"""``import skd`` starts nothing; the public names are all there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import skd

HEAVY = ("torch", "transformers", "accelerate", "datasets", "matplotlib", "numpy")


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh process has after ``code``."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), sep='\\n')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(result.stdout.split())


@pytest.mark.parametrize("code", ["import skd", "import skd.cli", "import skd, skd.config; dir(skd); skd.load_config"])
def test_nothing_heavy_is_loaded(code: str) -> None:
    loaded = loaded_by(code)
    assert "skd" in loaded
    assert not loaded.intersection(HEAVY)


def test_the_import_of_the_package_loads_no_part_of_it() -> None:
    script = "import skd, sys; print([name for name in sys.modules if name.startswith('skd.')])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", skd.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(skd, name) is not None


def test_names_are_sorted_and_listed() -> None:
    assert dir(skd) == sorted(skd.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'skd' has no attribute 'interlaeve'"):
        _ = skd.interlaeve


def test_train_can_be_called_whatever_was_imported_before() -> None:
    script = "import skd; assert callable(skd.train); import skd.train; assert callable(skd.train)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_version_is_that_of_the_package() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'^version = "(.*)"$', project, re.MULTILINE) == [skd.__version__]

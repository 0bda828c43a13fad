from __future__ import annotations

import subprocess
import sys

import pytest

import skd.data


def test_the_package_imports_no_torch_and_no_datasets() -> None:
    code = "import sys, skd.data; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_public_name_is_there() -> None:
    assert all(getattr(skd.data, name) is not None for name in skd.data.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'encode_promts'"):
        skd.data.encode_promts  # noqa: B018

"""The import check finds each planted violation, and the tree itself is clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_imports import ALLOWED, check
from scripts.findings import ROOT


def planted(root: Path, relative: str, source: str) -> list[str]:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return [finding.rule for finding in check(root)[0]]


@pytest.mark.parametrize(
    ("relative", "source", "rule"),
    [
        ("src/skd/sampling/slots.py", "from skd.train.loop import train", "direction"),
        ("src/skd/sampling/slots.py", "from ..train import loop", "direction"),
        ("src/skd/sampling/slots.py", "from .. import train", "direction"),
        ("src/skd/sampling/slots.py", "import skd.train.loop", "direction"),
        ("src/skd/sampling/slots.py", "def f():\n    from skd.train import loop", "direction"),
        ("src/skd/types.py", "from skd.sampling import TopK", "direction"),
        ("src/skd/sampling/slots.py", "from skd.models import Pair", "direction"),
        ("src/skd/train/loop.py", "from skd import cli", "direction"),
        ("src/skd/objectives/divergences.py", "from skd.models import Pair", "direction"),
        ("src/skd/objectives/divergences.py", "from transformers import PreTrainedModel", "model-class"),
        ("src/skd/train/loop.py", "from skd import TopK", "public-name"),
        ("src/skd/__init__.py", "import torch", "heavy-import"),
        ("src/skd/__init__.py", "from skd.types import Rollout", "direction"),
        ("src/skd/cli.py", "from transformers import AutoModel", "heavy-import"),
        ("src/skd/cli.py", "from skd.train import train", "heavy-import"),
        ("src/skd/config/schema.py", "try:\n    import torch\nexcept ImportError:\n    pass", "heavy-import"),
        ("src/skd/helpers.py", "", "unknown-room"),
    ],
)
def test_each_planted_import_is_found(tmp_path: Path, relative: str, source: str, rule: str) -> None:
    assert planted(tmp_path, relative, source) == [rule]


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        (
            "src/skd/cli.py",
            "from skd.config import load_config\n\ndef run():\n    from skd.train import train\n    import torch",
        ),
        (
            "src/skd/__init__.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from skd.types import Rollout",
        ),
        ("src/skd/train/loop.py", "import torch\nfrom skd.objectives import Objective\nfrom . import step"),
        ("src/skd/sampling/interleave.py", "from skd.types import Rollout\ndef f():\n    from skd.models import Pair"),
        ("src/skd/models/card.py", "from skd import __version__"),
    ],
)
def test_what_the_direction_allows_is_not_found(tmp_path: Path, relative: str, source: str) -> None:
    assert planted(tmp_path, relative, source) == []


def test_the_table_has_no_cycle() -> None:
    loaded: set[str] = set()
    while ready := {room for room, allowed in ALLOWED.items() if room not in loaded and allowed <= loaded}:
        loaded |= ready
    assert loaded == set(ALLOWED)


def test_message_names_the_place_and_the_way_out(tmp_path: Path) -> None:
    planted(tmp_path, "src/skd/objectives/chunked.py", "\nimport skd.data")
    assert [str(finding) for finding in check(tmp_path)[0]] == [
        "src/skd/objectives/chunked.py:2: direction: objectives imports data; it may import errors, schedule, types; "
        "move the shared part down"
    ]


def test_the_tree_is_clean() -> None:
    findings, checked = check(ROOT)
    assert [str(finding) for finding in findings] == []
    assert checked > 10

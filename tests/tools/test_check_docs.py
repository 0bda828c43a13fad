"""The documentation check finds each planted untruth, and the repository's own pages are true."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_docs import anchors, check
from scripts.findings import ROOT

MODULE = '''
"""A module."""
from dataclasses import dataclass

LIMIT = 3
FIRST, SECOND = 1, 2

@dataclass
class Rollout:
    ids: list[int]

    def text(self): ...
'''


def repository(root: Path, page: str) -> list[tuple[str, str]]:
    """Findings as (rule, message) of a small repository with one page."""
    (root / "src/skd/sampling").mkdir(parents=True)
    (root / "docs").mkdir()
    (root / "src/skd/__init__.py").write_text("_NAMES = {'load_pair': 'skd.models'}\n", encoding="utf-8")
    (root / "src/skd/types.py").write_text(MODULE, encoding="utf-8")
    (root / "src/skd/sampling/__init__.py").write_text("from skd.sampling.gates import TopK\n", encoding="utf-8")
    (root / "docs/other.md").write_text("# A title: `code`, and more\n\n## Twice\n\n## Twice\n", encoding="utf-8")
    (root / "docs/quoted.yaml").write_text("lr: 1\n", encoding="utf-8")
    (root / "README.md").write_text(page, encoding="utf-8")
    return [(finding.rule, finding.message) for finding in check(root)[0]]


@pytest.mark.parametrize(
    ("page", "rule", "message"),
    [
        ("[a](docs/none.md)", "link", "the link docs/none.md leads nowhere"),
        ("![a](none.png)", "link", "the link none.png leads nowhere"),
        ("[a](docs/other.md#none)", "link", "docs/other.md has no heading for #none"),
        ("[a](#none)", "link", "README.md has no heading for #none"),
        ("[a](../)", "link", "the link ../ leaves the repository"),
        ("see `src/skd/none.py`", "path", "src/skd/none.py does not exist"),
        ("```\npytest tests/none\n```", "path", "tests/none does not exist"),
        ("`skd.none.f`", "name", "skd.none.f is not defined"),
        ("`skd.types.none`", "name", "skd.types.none is not defined"),
        ("`skd.types.Rollout.none`", "name", "skd.types.Rollout.none is not defined"),
        ("```python\nskd.save_pair()\n```", "name", "skd.save_pair is not defined"),
        (
            "<!-- file: docs/quoted.yaml -->\n```yaml\nlr: 2\n```\n",
            "quotation",
            "the block is not docs/quoted.yaml word for word; copy it again",
        ),
    ],
)
def test_each_planted_untruth_is_found(tmp_path: Path, page: str, rule: str, message: str) -> None:
    assert repository(tmp_path, page) == [(rule, message)]


@pytest.mark.parametrize(
    "page",
    [
        "[a](docs/other.md) [b](docs/other.md#a-title-code-and-more) [c](docs/other.md#twice-1)",
        "[a](https://example.org/none#x) [b](mailto:someone@example.org)",
        "# Here\n[a](#here)",
        "`src/skd/types.py`, `src/skd/sampling/`, recipes of `a/src/none.py`",
        "`skd.types.LIMIT`, `skd.types.SECOND`, `skd.types.Rollout.ids`, `skd.types.Rollout.text`, `skd.sampling.TopK`",
        "`skd.load_pair(...)`, recipe `number_words/skd.yaml`, file `skd.yaml`",
        "```\n[a](none.md) is code here\n```",
        "<!-- file: docs/quoted.yaml -->\n```yaml\nlr: 1\n```\n",
    ],
)
def test_true_pages_are_left_alone(tmp_path: Path, page: str) -> None:
    assert repository(tmp_path, page) == []


def test_headings_in_code_blocks_are_no_anchors() -> None:
    assert anchors("# One\n```\n# Two\n```\n") == {"one"}


def test_the_repository_is_true() -> None:
    findings, checked = check(ROOT)
    assert [str(finding) for finding in findings] == []
    assert checked >= 3

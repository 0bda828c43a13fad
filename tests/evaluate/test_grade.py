"""Grading a file of somebody else's answers."""

import json

import pytest

from skd.errors import DataError
from skd.evaluate import grade
from skd.evaluate.grade import grade_file, read_pairs
from skd.evaluate.worker import MathVerify


def write(tmp_path, *rows):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_one_verdict_per_line_in_order(tmp_path):
    path = write(
        tmp_path,
        {"answer": r"So \boxed{\frac12}.", "reference": r"\boxed{0.5}"},
        {"answer": r"\boxed{\frac{1}{2}}", "reference": r"\boxed{\frac{1}{3}}"},
        "",
        {"answer": "", "reference": "1"},
        {"answer": None, "reference": "1"},
        {"answer": 3, "reference": 3.0},
        {"answer": "10^{10^{10}}", "reference": "1"},
    )
    verdicts = [row["verdict"] for row in grade_file(path)]
    assert verdicts == ["equal", "different", "no-answer", "no-answer", "equal", "timeout"]


def test_without_math_verify(tmp_path, monkeypatch):
    monkeypatch.setattr(MathVerify, "is_installed", staticmethod(lambda: False))
    path = write(tmp_path, {"answer": "1/2", "reference": "0.5"}, {"answer": r"\sin(x)", "reference": r"\cos(x)"})
    assert list(grade_file(path)) == [
        {"verdict": "equal", "tier": "value"},
        {"verdict": "different", "tier": "undecided"},
    ]


def test_all_problems_of_a_file_are_named(tmp_path):
    path = write(
        tmp_path,
        "{",
        {"answer": "1"},
        {"answer": [1], "reference": "1"},
        {"answer": "1", "reference": " "},
        {"answer": "1", "reference": r"\boxed{1"},
        "[]",
    )
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    text = str(caught.value)
    assert "[SKD-D02]" in text
    assert "answers.jsonl:2: has no answer and reference" in text
    assert "[SKD-E10]" in text
    assert "answers.jsonl:4: the reference states no answer" in text
    assert "1 more lines with problems, 6 in all" in text


@pytest.mark.parametrize("content", [None, b"", b"\xff\n"])
def test_files_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "f.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="SKD-D0"):
        grade.read_pairs(path)

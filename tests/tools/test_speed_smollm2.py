"""The benchmark's real pair: its config, and the rows that are taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import smollm2
from skd.config import load_config
from tests.tiny import tiny_tokenizer

TEMPLATE = "{% for m in messages %}t2 {{ m['content'] }} t3{% endfor %}"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "base")
    monkeypatch.setattr(smollm2, "_BASE", tmp_path / "base")
    monkeypatch.setattr(smollm2, "_WORK", tmp_path)
    lengths = [(45, 9), (46, 5), (46, 4), (78, 6), (79, 9), (60, 7)]
    rows = [{"question": " ".join(["t4"] * q), "answer": " ".join(["t5"] * a)} for q, a in lengths]
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    (tmp_path / "data" / "gsm8k" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


def test_rows_are_long_enough_and_cut_alike(made: Path) -> None:
    prompts, responses = smollm2.rows(3, 5)
    assert [len(ids) for ids in prompts] == [48, 80, 62]
    assert [len(ids) for ids in responses] == [5, 5, 5]
    assert prompts[0][:2] == [2, 4]
    assert prompts[0][-1] == 3


def test_too_few_rows_are_told(made: Path) -> None:
    with pytest.raises(SystemExit, match="3 rows have a reference of 5 ids, 4 are needed"):
        smollm2.rows(4, 5)


def test_the_run_is_of_the_files_that_are_made() -> None:
    config = load_config(Path(smollm2.__file__).with_suffix(".yaml"))
    assert str(smollm2._ROOT / config.teacher.path) == str(smollm2._BASE)
    assert smollm2._ROOT / config.output / "student" == smollm2._WORK / "run" / "student"
    assert smollm2._ROOT / config.student.path == smollm2._WORK / "start"

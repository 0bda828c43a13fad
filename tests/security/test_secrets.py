"""Keys in the environment stay there: a whole run, its page and its failures hold none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import skd.live
from skd.cli import main
from skd.config.credentials import hidden, is_secret_variable
from tests.check.bench import Bench
from tests.security.conftest import Run

KEYS = {
    "HF_TOKEN": "hf_CANARYcanaryCANARYcanaryCANARYca",
    "WANDB_API_KEY": "CANARYcanaryCANARYcanaryCANARYcanary4242",
    "SKD_TEACHER_TOKEN": "CANARY-teacher-token-0123456789abcdef",
    "OPENAI_API_KEY": "sk-CANARYcanaryCANARYcanary",
    "AWS_SECRET_ACCESS_KEY": "CANARY/canary+CANARY/canary",
}


def leaks(root: Path) -> list[str]:
    """Files under ``root`` that hold a key, in any case of a canary."""
    return [str(path) for path in root.rglob("*") if path.is_file() and b"canary" in path.read_bytes().lower()]


def test_no_file_of_a_run_holds_a_key(bench: Bench, tmp_path: Path, skd: Run) -> None:
    bench.json("student/tokenizer_config.json", model_max_length=64)
    outputs = []
    for arguments in (["check", "run.yaml"], ["train", "run.yaml"], ["report", "runs/x"]):
        result = skd(*arguments, **KEYS)
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout + result.stderr)
    assert (bench.root / "runs/x/student/model.safetensors").is_file()
    assert (bench.root / "runs/x/report.html").is_file()
    assert leaks(tmp_path) == []
    assert "canary" not in "".join(outputs).lower()


def test_no_failure_shows_a_key(bench: Bench, tmp_path: Path, skd: Run) -> None:
    outputs = []
    for override in ("student=no/such", "data.train=nowhere", "train.lr=hf_", "output=run.yaml", "nosuch.key=1"):
        result = skd("train", "run.yaml", override, **KEYS)
        assert result.returncode in (2, 3, 6), result.stderr
        outputs.append(result.stdout + result.stderr)
    assert leaks(tmp_path) == []
    assert "canary" not in "".join(outputs).lower()


def test_a_traceback_does_not_show_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError(f"headers: Authorization: Bearer {KEYS['HF_TOKEN']}, {KEYS['AWS_SECRET_ACCESS_KEY']}")

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(skd.live, "generate", fail)
    assert main(["generate", "--teacher", "a", "--student", "b", "p"]) == 70
    assert "Bearer (not shown)" in capsys.readouterr().err
    (log,) = tmp_path.glob("skd-traceback-*.log")
    assert "Bearer (not shown), (not shown)" in log.read_text()
    assert leaks(tmp_path) == []


@pytest.mark.parametrize("place", ["wandb_key: {}", "output: {}", "train: {{lr: {}}}", "data.train={}", "hf_token={}"])
def test_a_key_in_config_or_arguments_is_refused_and_not_repeated(
    place: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    text = place.format(KEYS["HF_TOKEN"])
    overrides = [text] if "=" in place else []
    if not overrides:
        (bench.root / "run.yaml").write_text(f"{text}\n{(bench.root / 'run.yaml').read_text()}")
    assert main(["check", "run.yaml", *overrides]) == 2
    captured = capsys.readouterr()
    assert "set the environment variable" in captured.out
    assert "canary" not in (captured.out + captured.err).lower()


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("WANDB_API_KEY", True),
        ("DB_PASSWORD", True),
        ("PATH", False),
        ("TOKENIZERS_PARALLELISM", False),
    ],
)
def test_which_variables_hold_keys(name: str, secret: bool) -> None:
    assert is_secret_variable(name) is secret


def test_hidden_leaves_other_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCH_TOKEN", "1")
    monkeypatch.setenv("LONG_TOKEN", "abcdefgh")
    assert hidden("step 1 of 11, abcdefgh") == "step 1 of 11, (not shown)"
    assert hidden(json.dumps({"a": 1})) == '{"a": 1}'

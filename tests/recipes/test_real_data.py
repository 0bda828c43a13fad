"""From nothing to scores on real rows: the commands of recipes/real_data/run.sh, cut to two steps."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from skd import cli
from skd.data.make.__main__ import main as make_data
from tests.recipes.scripts import RECIPES, script

SHORT = ["train.max_steps=2", "train.batch_size=2", "train.validate_every=null", "train.trackers=[]"]


def test_a_tiny_pair_goes_from_rows_to_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ["--train", "8", "--validation", "2", "--test", "2", "--max-characters", "350"]
    assert make_data(["gsm8k", "--to", "data", *sizes, "--offline"]) == 0
    assert script("real_data/make_pair.py").main(["gsm8k", "data/gsm8k", "--to", "models/real_data/gsm8k"]) == 0
    recipes, runs = RECIPES / "real_data", "runs/real_data/gsm8k"
    for config, extra in (
        ("sft", []),
        ("sft", ["student=models/real_data/gsm8k/student", f"output={runs}/sft"]),
        ("skd", ["sampling.max_new_tokens=12"]),
    ):
        assert cli.main(["train", str(recipes / f"{config}.yaml"), *SHORT, *extra]) == 0
    evaluate = f"evaluate {runs}/skd --task gsm8k --data data/gsm8k/test.jsonl --max-new-tokens 12 --out scores.jsonl"
    assert cli.main([*evaluate.split(), "--teacher", f"{runs}/teacher/student"]) == 0
    scores = json.loads(Path("scores.summary.json").read_text(encoding="utf-8"))
    assert "forward_kl" in json.dumps(scores)


def test_the_pair_is_the_same_for_the_same_rows_and_writes_every_script(tmp_path: Path) -> None:
    rows = [{"source": "স্থান আৰু ফাইলৰ নাম:", "target": "Location and file name:"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    make_pair = script("real_data/make_pair.py")
    for folder in ("a", "b"):
        assert make_pair.main(["translation", str(tmp_path), "--to", str(tmp_path / folder)]) == 0
    files = [tmp_path / folder / role / "model.safetensors" for folder in "ab" for role in ("teacher", "student")]
    contents = [file.read_bytes() for file in files]
    assert contents[:2] == contents[2:]
    tokenizer = make_pair.PreTrainedTokenizerFast.from_pretrained(tmp_path / "a" / "student")
    for text in (rows[0]["source"], "1 + 23 = 24", "Müller, 数学 🙂\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_rows_of_another_task_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.jsonl").write_text('{"source": "a", "target": "b"}\n', encoding="utf-8")
    assert script("real_data/make_pair.py").main(["gsm8k", str(tmp_path), "--to", str(tmp_path / "x")]) == 3
    assert "the task gsm8k reads" in capsys.readouterr().err


def test_the_shell_script_calls_what_is_there() -> None:
    words = shlex.split((RECIPES / "real_data" / "run.sh").read_text(encoding="utf-8"), comments=True)
    named = {word for word in words if word.startswith("recipes/")}
    assert named
    assert all((RECIPES.parent / name).is_file() for name in named)

"""From nothing to scores on real rows: the commands of recipes/real_data/run.sh, cut to two steps."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from skd import cli
from skd.data.make import catalogues
from skd.data.make.__main__ import main as make_data
from tests.data.make.sources import catalogue
from tests.recipes.scripts import RECIPES, script

SHORT = ["train.max_steps=2", "train.batch_size=2", "train.validate_every=null", "train.trackers=[]"]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a network would give: a catalogue with many sentences, and package lists."""
    monkeypatch.setattr(catalogues, "LOCALES", tmp_path / "none")
    texts = {f"Here are {i} words in a row": f"ইয়াত {i} টা শব্দ আছে" for i in range(80)}
    catalogue(tmp_path / "sources" / "libreoffice-l10n-as" / "sd.mo", texts)
    (tmp_path / "sources" / "apt").mkdir()
    text = "Makes {0} things of others\n Tool {0} makes things.\n It " + 20 * "really " + "does."
    lists = "\n\n".join(f"Package: tool{i}\nDescription-en: {text.format(i)}" for i in range(80))
    (tmp_path / "sources" / "apt" / "x_Translation-en").write_text(lists, encoding="utf-8")
    return tmp_path / "sources"


@pytest.mark.parametrize(
    ("task", "folder"),
    [("gsm8k", "gsm8k"), ("math", "math"), ("dialogsum", "dialogsum"), ("translation", "assamese-english")],
)
def test_a_tiny_pair_goes_from_rows_to_scores(
    task: str, folder: str, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ["--train", "8", "--validation", "2", "--test", "2", "--max-characters", "350"]
    assert make_data([task, "--to", "data", *sizes, "--sources", str(sources), "--offline"]) == 0
    assert script("real_data/make_pair.py").main([task, f"data/{folder}", "--to", "models"]) == 0
    train_rows, held_out = (
        [f"data.{part}.path=data/{folder}/{part}.jsonl", f"data.{part}.task={task}"] for part in ("train", "validation")
    )
    both = f"data.train=[{{path: data/{folder}/train.jsonl, task: {task}}}, {{path: models/texts.jsonl}}]"
    for config, *extra in (
        ("sft", both, "student=models/teacher", "output=runs/teacher"),
        ("sft", both, "student=models/student", "output=runs/sft"),
        (
            "skd",
            *train_rows,
            "teacher=runs/teacher/student",
            "student=runs/sft/student",
            "output=runs/skd",
            "sampling.max_new_tokens=8",
        ),
    ):
        assert cli.main(["train", str(RECIPES / "real_data" / f"{config}.yaml"), *held_out, *SHORT, *extra]) == 0
    evaluate = ["evaluate", "runs/skd", "--task", task, "--data", f"data/{folder}/test.jsonl", "--max-new-tokens", "8"]
    assert cli.main([*evaluate, "--teacher", "runs/teacher/student", "--out", "scores.jsonl"]) == 0
    scores = json.loads(Path("scores.summary.json").read_text(encoding="utf-8"))["scores"]
    assert scores["forward_kl"]["n"] == 2


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

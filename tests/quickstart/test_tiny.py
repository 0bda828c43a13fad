from __future__ import annotations

from pathlib import Path

import pytest
import torch

from skd.data.rows import Row
from skd.data.tasks import TASKS
from skd.data.words import build_tokenizer
from skd.quickstart import make_assets, tiny
from skd.quickstart.tiny import Recipe, build_model, train

TASK = TASKS["number_words"]
RECIPE = Recipe(hidden=16, layers=1, steps=60, schedule=60, batch=8, lr=1e-2)


def test_training_is_deterministic_and_lowers_the_loss() -> None:
    tokenizer, rows = build_tokenizer(TASK), TASK.rows("train", 40, 0)
    models = [build_model(RECIPE, tokenizer) for _ in range(2)]
    losses = [train(model, tokenizer, rows, RECIPE) for model in models]
    assert losses[0] == losses[1] < 3.5
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_only_response_and_end_token_have_labels() -> None:
    tokenizer = build_tokenizer(TASK)
    batch = tiny._training_batch(tokenizer, [Row("one =", "eins"), Row("twenty one =", "ein und zwanzig")])
    labels = [[int(i) for i in row if i != tiny.IGNORED] for row in batch["labels"]]
    assert tokenizer.batch_decode(labels) == ["eins </s>", "ein und zwanzig </s>"]
    assert tokenizer.batch_decode(batch["input_ids"]) == [
        "one = eins </s> <pad> <pad> <pad>",
        "twenty one = ein und zwanzig </s>",
    ]
    assert batch["attention_mask"].sum(1).tolist() == [4, 7]


def test_batches_visit_every_row_before_any_comes_again() -> None:
    rows = [Row(str(i), "x") for i in range(10)]
    seen = [row for batch in tiny._batches(rows, Recipe(1, 1, steps=5, schedule=5, batch=4)) for row in batch]
    assert len(seen) == 20
    assert set(seen[:10]) == set(seen[10:]) == set(rows)


def test_an_asset_is_written_whole_over_an_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        make_assets, "ASSETS", {("number_words", "student"): Recipe(16, 1, steps=1, schedule=1, batch=2)}
    )
    monkeypatch.setattr(make_assets, "TRAIN_ROWS", 10)
    monkeypatch.setattr(make_assets, "TEST_ROWS", 4)
    old = tmp_path / "number_words" / "student" / "old.txt"
    old.parent.mkdir(parents=True)
    old.write_text("stale")
    make_assets.main(["--out", str(tmp_path), "number_words"])
    assert sorted(path.name for path in (tmp_path / "number_words").rglob("*")) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "student",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    card = (old.parent / "README.md").read_text(encoding="utf-8")
    assert "1 steps of 2 rows" in card
    assert "0.0% exact match" in card


def test_unknown_tasks_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        make_assets.main(["--out", str(tmp_path), "numbers"])
    assert "unknown task numbers; choose from number_words, dialogue" in capsys.readouterr().err

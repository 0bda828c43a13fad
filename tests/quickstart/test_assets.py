from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import skd.quickstart
from skd.data.tasks import TASKS
from skd.data.words import build_tokenizer
from skd.quickstart.make_assets import ASSETS
from skd.quickstart.tiny import build_model, exact_match

ROOT = Path(skd.quickstart.__file__).parent / "assets"
assets = pytest.mark.parametrize(("task", "role"), ASSETS)


def test_everything_shipped_has_a_recipe_and_fits_the_wheel() -> None:
    shipped = {(path.parent.parent.name, path.parent.name) for path in ROOT.glob("*/*/model.safetensors")}
    assert shipped == set(ASSETS)
    assert sum(path.stat().st_size for path in ROOT.rglob("*")) < 8e6
    assert not [path for path in ROOT.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


@assets
def test_an_asset_is_a_plain_transformers_directory(task: str, role: str) -> None:
    directory, recipe = ROOT / task / role, ASSETS[task, role]
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    built = build_tokenizer(TASKS[task])
    assert tokenizer.get_vocab() == built.get_vocab()
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, None)
    row = TASKS[task].rows("test", 1, 0)[0]
    assert tokenizer.decode(tokenizer(row.prompt)["input_ids"]) == row.prompt
    for name in ("config.json", "generation_config.json"):
        config = json.loads((directory / name).read_text())
        assert (config["pad_token_id"], config["eos_token_id"], config.get("bos_token_id")) == (0, 1, None)
    expected = {name: weight.shape for name, weight in build_model(recipe, built).state_dict().items()}
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=False, use_safetensors=True)
    assert {name: weight.shape for name, weight in model.state_dict().items()} == expected


@pytest.mark.parametrize("task", sorted({task for task, _ in ASSETS}))
def test_the_teacher_masters_the_task_and_the_student_does_not(task: str) -> None:
    rows = TASKS[task].rows("test", 100, 7)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / task / "teacher", trust_remote_code=False)
    scores = {
        role: exact_match(
            AutoModelForCausalLM.from_pretrained(ROOT / task / role, trust_remote_code=False, use_safetensors=True),
            tokenizer,
            TASKS[task],
            rows,
        )
        for role in ("teacher", "student")
    }
    assert scores["teacher"] >= 0.95
    assert scores["student"] <= 0.6


@assets
def test_the_card_tells_how_it_was_made_and_what_it_scores(task: str, role: str) -> None:
    card = (ROOT / task / role / "README.md").read_text(encoding="utf-8")
    recipe = ASSETS[task, role]
    made = f"{recipe.steps} steps of {recipe.batch} rows" if recipe.steps else "random weights"
    for expected in ("license: apache-2.0", "% exact match, greedy, on 1,000 rows", "make_assets --out DIR", made):
        assert expected in card

"""Every recipe: read, in agreement with its place, and run for two steps with tiny models of its family."""

import json
import logging
from pathlib import Path

import pytest

from skd.config import METHODS, load_config
from skd.config.methods import recipe_of
from skd.data import FILE_TASKS
from skd.train import train
from tests.recipes.conftest import FAMILIES, small

ROOT = Path(__file__).parent.parent.parent
TASKS = ("gsm8k", "dialogsum", "translation", "math")
PAPER = ("gemma", "qwen2")
NAMES = (
    *("teacher_sft", "student_sft", "skd", "supervised_kd", "on_policy", "imitkd", "seq_kd"),
    *("student_sft_100", "skd_100"),
)
PATHS = [
    *(f"recipes/{task}/{family}/{name}.yaml" for task in TASKS for family in PAPER for name in NAMES),
    *(
        f"recipes/gsm8k/{family}/{name}.yaml"
        for family in ("qwen3", "gemma3", "smollm2")
        for name in ("teacher_sft", "student_sft", "skd")
    ),
]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def parts_of(path):
    """Task, family and name of a recipe's path."""
    _, task, family, name = Path(path).with_suffix("").parts
    return task, family, name


def test_the_four_tasks_have_these_recipes_and_no_others():
    found = {path.relative_to(ROOT).as_posix() for task in TASKS for path in (ROOT / "recipes" / task).rglob("*.yaml")}
    assert found == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_a_recipe_says_what_its_path_says(path):
    task, family, name = parts_of(path)
    config = load_config(path)
    stem = name.removesuffix("_100")
    assert config.method == {"teacher_sft": "sft", "student_sft": "sft"}.get(stem, stem)
    assert config.output == path.replace("recipes", "runs").removesuffix(".yaml")
    assert {source.task for source in (*config.data.train, *config.data.validation)} == {task}
    known = FILE_TASKS[task]
    assert config.data.max_prompt_tokens == known.max_prompt_tokens
    assert config.sampling.max_new_tokens == known.max_new_tokens
    assert config.sampling.stop_strings == known.stop_strings
    if config.method != "sft":
        low = "_100" if name.endswith("_100") else ""
        assert config.teacher.path == f"runs/{task}/{family}/teacher_sft/student"
        assert config.student.path == f"runs/{task}/{family}/student_sft{low}/student"


@pytest.mark.parametrize("path", [path for path in PATHS if "_100" in path])
def test_low_data_recipes_read_100_rows(path):
    (source,) = load_config(path).data.train
    assert source.limit == 100 or source.path == "data/mt_100_train.json"


def test_the_papers_numbers():
    kd, sft = load_config("recipes/translation/qwen2/skd.yaml"), load_config("recipes/gsm8k/gemma/teacher_sft.yaml")
    assert (kd.policy.gate.k, kd.train.lr, kd.train.batch_size, kd.train.epochs) == (25, 1e-5, 8, 10)
    warps = (kd.sampling.student.temperature, kd.sampling.student.top_p, kd.sampling.teacher.temperature)
    assert (*warps, kd.sampling.teacher.top_p, kd.objective.reduction) == (0.5, 0.5, 0.2, 1.0, "sequence")
    assert load_config("recipes/dialogsum/gemma/skd.yaml").sampling.teacher.top_p == 0.5
    assert (sft.data.train[0].limit, sft.train.batch_size, sft.train.schedule, sft.train.seed) == (
        7000,
        128,
        "cosine",
        42,
    )


@pytest.mark.parametrize("path", PATHS)
def test_two_steps_with_tiny_models(path, models, rows, tmp_path):
    _, family, name = parts_of(path)
    assert family in FAMILIES
    config = small(load_config(path), models(family), rows, tmp_path / name)
    result = train(config, display=False)
    lines = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    losses = [line["loss"] for line in lines if "lr" in line]
    assert len(losses) == result.step == 2
    assert (result.student_dir / "model.safetensors").is_file()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_a_recipe_that_runs_it(method, tmp_path, caplog):
    config = load_config(recipe_of(method))
    assert config.method == method
    assert config.output == f"runs/number_words/{method}"
    assert (config.teacher is None) == (method == "sft")
    changes = {"train.max_steps": 2, "train.batch_size": 4, "train.trackers": []}
    changes |= {"data.validation.size": 8, "output": str(tmp_path / "run")}
    with caplog.at_level(logging.WARNING):
        assert train(config, overrides=changes, display=False).step == 2


def test_the_recipe_of_several_teachers_trains_from_all_of_them(tmp_path):
    changes = {"train.max_steps": 2, "train.batch_size": 8, "train.trackers": [], "output": str(tmp_path / "run")}
    result = train(load_config("recipes/several_teachers/skd.yaml"), overrides=changes, display=False)
    rows = [json.loads(line) for line in result.metrics.read_text().splitlines()]
    told = [row["by_teacher"] for row in rows if "lr" in row]
    assert len(told) == 2
    assert all(sum(row[name]["responses"] for row in told) for name in ("short", "long"))


def test_the_number_words_folder_holds_one_recipe_for_each_method():
    assert {path.stem for path in (ROOT / "recipes" / "number_words").glob("*.yaml")} == set(METHODS)

from pathlib import Path

import pytest

import skd.config.paths as paths
from skd.config import load_config, resolve_model_path
from skd.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package directory that holds one model, words/teacher."""
    model = tmp_path / "quickstart" / "assets" / "words" / "teacher"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    monkeypatch.setattr(paths, "files", lambda package: tmp_path)
    return tmp_path


def test_a_builtin_model_is_a_directory_of_the_package(package: Path) -> None:
    assert Path(resolve_model_path("builtin:words/teacher")) == package / "quickstart" / "assets" / "words" / "teacher"


@pytest.mark.parametrize("path", ["google/gemma-2b", "./models/x", "C:\\models"])
def test_other_paths_stay(path: str) -> None:
    assert resolve_model_path(path) == path


@pytest.mark.parametrize("name", ["words/student", "words", "", "../words/teacher", "words/teacher/..", "words\n/x"])
def test_an_unknown_builtin_model_is_refused_with_those_there_are(name: str, package: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_model_path(f"builtin:{name}")
    assert "is no model of this package; choose one of builtin:words/teacher" in str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.parent.name}/{recipe.name}")
def test_every_recipe_is_valid(recipe: Path) -> None:
    config = load_config(recipe)
    if recipe.stem in {"skd", "sft", "on_policy", "supervised_kd", "seq_kd"}:
        assert config.method == recipe.stem


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 4

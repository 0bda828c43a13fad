from pathlib import Path

import pytest

import skd.config.paths as paths
from skd.config import resolve_model_path
from skd.errors import ConfigError


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

"""The command, from sources to files that a run reads; and what it gets from the machine."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from skd.config.sources import FileSource
from skd.data import load_rows
from skd.data.make import catalogues
from skd.data.make.__main__ import main
from skd.data.make.machine import Machine
from skd.data.make.makers import find_maker
from skd.errors import ConfigError, DataError
from tests.data.make.sources import catalogue, templates

SIZES = ["--train", "12", "--validation", "2", "--test", "2", "--offline"]


def make(task: str, to: Path, *options: str) -> int:
    return main([task, "--to", str(to), *SIZES, *options])


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_the_rows_are_read_by_the_task_that_they_were_made_for(task: str, tmp_path: Path) -> None:
    assert make(task, tmp_path) == 0
    rows = load_rows([FileSource(path=str(tmp_path / task / "train.jsonl"), task=task)])
    assert len(rows) == 12
    assert all(row.response for row in rows)


def test_the_same_seed_gives_the_same_files_and_the_card_names_them(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert make("gsm8k", tmp_path / folder, "--seed", "7") == 0
    assert make("gsm8k", tmp_path / "c", "--seed", "8") == 0
    first, again, other = ((tmp_path / folder / "gsm8k" / "train.jsonl").read_bytes() for folder in "abc")
    assert first == again != other
    card = (tmp_path / "a" / "gsm8k" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(first).hexdigest() in card
    assert "Apache-2.0" in card
    assert "--seed 7" in card


def test_every_row_names_its_origin_and_no_row_is_too_long(tmp_path: Path) -> None:
    assert make("gsm8k", tmp_path, "--max-characters", "350") == 0
    rows = [json.loads(line) for line in (tmp_path / "gsm8k" / "train.jsonl").read_text().splitlines()]
    assert {row["licence"] for row in rows} == {"Apache-2.0"}
    assert all(row["origin"].startswith("reasoning-gym ") for row in rows)
    assert all(len(row["question"]) + len(row["answer"]) <= 350 for row in rows)


def test_sentence_pairs_are_made_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "LOCALES", tmp_path / "none")
    texts = {f"Here are {i} words in a row": f"Hier stehen {i} Wörter am Stück" for i in range(80)}
    catalogue(tmp_path / "sources" / "libreoffice-l10n-de" / "sd.mo", texts)
    assert make("translation:German-English", tmp_path) == 0  # the templates are missing
    templates(tmp_path / "sources", "deu", "Wie viele sind es?", "Es sind 3.", ("How many is it?", "It is three."))
    assert make("translation:German-English", tmp_path) == 0
    path = tmp_path / "german-english" / "test.jsonl"
    [row, _] = load_rows([FileSource(path=str(path), task="translation:German-English")])
    assert row.prompt.startswith("Translate German sentence into English. This is the German sentence: Hier stehen")


@pytest.mark.parametrize(
    ("arguments", "told", "code"),
    [
        (["poetry"], "write one of gsm8k, math, dialogsum, translation", 2),
        (["translation:Klingon-English"], "no sources are known for 'Klingon-English'; write translation:LANGUAGE", 2),
        (["translation:English-German"], "with one of Assamese, Danish, French, German, Hindi", 2),
    ],
)
def test_an_unknown_task_is_refused(
    arguments: list[str], told: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--to", str(tmp_path)]) == code
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_no_number_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["gsm8k", "--to", str(tmp_path), "--train", "-5"])
    assert "'-5' is no whole number" in capsys.readouterr().err


def test_without_package_lists_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "LISTS", tmp_path / "none")
    monkeypatch.setattr(Machine, "INSTALLED", tmp_path / "none")
    with pytest.raises(DataError, match=r"SKD-D01.*no package lists.*on a Debian or Ubuntu machine"):
        Machine(tmp_path, offline=True).package_lists()


def test_a_list_that_cannot_be_unpacked_is_told(tmp_path: Path) -> None:
    (tmp_path / "apt").mkdir()
    (tmp_path / "apt" / "x_Translation-en.lz4").write_bytes(b"no archive")
    machine = Machine(tmp_path, offline=True)
    [path] = machine.package_lists()
    with pytest.raises(DataError, match=r"SKD-D02.*en.lz4: apt-helper cannot unpack it; run apt-get update again"):
        machine.read(path)


def test_a_package_is_downloaded_and_unpacked_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run(command: list[str], cwd: Path, **_: object) -> None:
        ran.append(command[0])
        if command[0] == "apt-get":
            (cwd / "tool_1_all.deb").touch()
        elif len(ran) == 2:
            raise subprocess.CalledProcessError(1, command)
        else:
            Path(command[-1]).mkdir()

    monkeypatch.setattr("shutil.which", lambda program: program)
    monkeypatch.setattr("subprocess.run", run)
    machine = Machine(tmp_path)
    assert machine.debian_package("tool") is None
    assert machine.debian_package("tool") == tmp_path / "tool"
    assert machine.debian_package("tool") == tmp_path / "tool"
    assert ran == ["apt-get", "dpkg"] * 2


def test_offline_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", None)
    assert Machine(tmp_path, offline=True).debian_package("tool") is None


def test_the_names_that_the_help_gives_are_known() -> None:
    for task in ("gsm8k", "math", "dialogsum", "translation", "translation:Hindi-English"):
        assert find_maker(task).title
    with pytest.raises(ConfigError):
        find_maker("gsm8k:hard")

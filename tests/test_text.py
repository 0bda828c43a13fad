"""Hidden characters show, ordinary text does not change, files are replaced whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.errors import ResourceError
from skd.text import require_writable, shortened, visible, write_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\rb\x00c\x7f\x9b", "a\\x0db\\x00c\\x7f\\x9b"),
        ("user\u202etxt.exe\u2066", "user\\u202etxt.exe\\u2066"),
        ("zero\u200bwidth\ufeff\xad", "zero\\u200bwidth\\ufeff\\xad"),
        ("line\u2028end", "line\\u2028end"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_hidden_characters_become_escapes(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["a\tb\nc", "vier hundert", "অসমীয়া\u200dক", "👩\u200d💻", "שלום", "<b>&amp;\\x1b"])
def test_ordinary_text_stays(text):
    assert visible(text) == text


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_every_text_can_be_written_and_is_stable(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown


def test_shortened_counts_what_is_left_out():
    assert shortened("abc", 3) == "abc"
    assert shortened("a" * 5000, 1000) == "a" * 1000 + " … (4,000 more characters)"


def test_write_text_replaces_whole_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "new" / "page.html"
    assert write_text(target, "old") == target
    write_text(target, "ä\n")
    assert target.read_bytes() == "ä\n".encode()
    assert [p.name for p in target.parent.iterdir()] == ["page.html"]


def test_write_text_to_an_impossible_place(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ResourceError, match=r"error\[SKD-H09\] .*page.html: cannot be written .*; name a path"):
        write_text(tmp_path / "page.html", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_writability_is_known_without_touching_what_is_there(tmp_path):
    target = tmp_path / "new" / "page.html"
    require_writable(target)
    assert not list(target.parent.iterdir())
    target.write_text("old")
    require_writable(target)
    assert target.read_text() == "old"
    for impossible in (target.parent, target / "below"):
        with pytest.raises(ResourceError, match=r"error\[SKD-H09\] .*: cannot be written .*; name a path"):
            require_writable(impossible)
    assert [p.name for p in target.parent.iterdir()] == ["page.html"]

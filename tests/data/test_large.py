"""Data larger than memory should hold: rows and ids on disk, limits that are said before anything is read in."""

import json
import tracemalloc

import pytest

from skd.config import FileSource
from skd.data import files, sources, spool
from skd.data.rows import Row, Turn
from skd.data.sources import leak, load_rows
from skd.data.spool import Flags, Numbers, Rows, TokenLists
from skd.errors import DataError, ResourceError

CASES = {
    Rows: [Row("a\ud7ff", "b\u2028"), Row("", None), Row("c", "d", (Turn("system", ""), Turn("user", "x")))] * 9,
    TokenLists: [[1, 2, 2**31 - 1], [], [7]] * 9,
    Flags: [[True, False], [], [True]] * 9,
    Numbers: [0, 2**40, 5] * 9,
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("limit", [1, 40, 1 << 20])
def test_a_sequence_reads_the_same_from_memory_and_from_disk(kind, limit, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", limit)
    items = CASES[kind]
    spooled = kind(items)
    assert spooled == items
    assert list(spooled) == items
    assert (spooled[-1], spooled[3:20:4], len(spooled)) == (items[-1], items[3:20:4], 27)
    assert spooled != [*items[:-1], items[0]]
    for length in (26, 3, 0):
        spooled.cut(length)
        assert spooled == items[:length]
    spooled.extend(items)
    assert spooled == items
    with pytest.raises(IndexError):
        spooled[27]


def test_a_directory_of_temporary_files_without_room_is_named(monkeypatch):
    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ResourceError, match=r"SKD-K03.*No space left on device\); free space there, or set TMPDIR"):
        Rows([Row("a", "b")])


def written(tmp_path, lines, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return FileSource(path=str(path))


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 1 << 20)
    source = written(tmp_path, (json.dumps({"prompt": f"{i} " + "x" * 990, "response": "y"}) for i in range(20_000)))
    tracemalloc.start()
    rows = load_rows([source])
    assert leak(rows, rows[:3]) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(rows), rows[19_999].prompt[:6]) == (20_000, "19999 ")
    assert peak < 6 << 20  # of 20 MB


def test_a_row_of_a_megabyte_is_read_and_a_longer_one_than_the_limit_is_named(tmp_path, monkeypatch):
    fine, long = json.dumps({"prompt": "a" * 1_000_000, "response": "b"}), "[" * 3_000_000
    source = written(tmp_path, [fine, long, fine, "{", fine])
    assert len(load_rows([source], on_bad_row="skip")) == 3
    monkeypatch.setattr(files, "MAX_ROW_BYTES", 1 << 21)
    with pytest.raises(DataError) as caught:
        load_rows([source])
    messages = str(caught.value).splitlines()
    assert messages[0] == (
        f"error[SKD-D17] {source.path}:2: the row has more than 2 MiB; shorten or remove it; no model reads so much at "
        "once"
    )
    assert messages[1].startswith(f"error[SKD-D02] {source.path}:4:2: not JSON")


def test_other_limits_are_named(tmp_path, monkeypatch):
    rows = [{"prompt": f"p{i}", "response": "r" * 50} for i in range(9)]
    whole = written(tmp_path, [json.dumps(rows)], "rows.json")
    lines = written(tmp_path, map(json.dumps, rows))
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 100)
    with pytest.raises(DataError, match=r"SKD-D17.*rows.json: has more than 0 MiB, .*; write one object per line"):
        load_rows([whole])
    monkeypatch.setattr(sources, "MAX_ROWS", 8)
    with pytest.raises(DataError, match=r"SKD-D17.*rows.jsonl: more than 8 rows; set limit or share"):
        load_rows([lines])
    monkeypatch.setattr("skd.data.shapes.MAX_CHARACTERS", 49)
    with pytest.raises(DataError, match=r"SKD-D17.*rows.jsonl:1: field 'response' has 50 characters, more than 49"):
        load_rows([lines])


def test_a_table_that_is_no_text_is_refused_by_line_without_being_held(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,response\na,b\nc,\xff\n")
    with pytest.raises(DataError, match=r"SKD-D03.*rows.csv:3: byte 0xff at offset 22 is not UTF-8"):
        load_rows([FileSource(path=str(path))])

import errno
import json
import os

import pytest

from skd.train.log import JsonLines, RunLog


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("torn", ["", '{"step": 4, "lo', '{"step": 4}', '[]\nno row\n{"a": 1}\n{"step": "x"}\n'])
def test_reopening_drops_later_steps_and_what_is_no_row(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "validation": {}}\n{"step": 3}\n' + torn)
    log = JsonLines(path, after_step=2)
    log.append({"step": 3, "again": True})
    log.close()
    assert rows(path) == [{"step": 1}, {"step": 2}, {"step": 2, "validation": {}}, {"step": 3, "again": True}]


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path):
    log = JsonLines(tmp_path / "x.jsonl", after_step=0)
    log.append({"step": 1})
    assert rows(tmp_path / "x.jsonl") == [{"step": 1}]
    log.close()


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    with RunLog(tmp_path, after_step=-1) as log:
        log.training(1, {"loss": float("nan"), "tokens": 3})
        log.validation(1, {"loss": float("inf")})
    assert rows(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": None, "tokens": 3},
        {"step": 1, "validation": {"loss": None}},
    ]


def test_a_fresh_start_empties_what_an_earlier_one_left(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "validation": {}}\n{"step": 1}\n')
    with RunLog(tmp_path, after_step=-1):
        pass
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_other_ranks_write_nothing(tmp_path):
    with RunLog(tmp_path, after_step=-1, trackers=None, enabled=False) as log:
        log.training(1, {"loss": 0.5})
        log.sync()
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    """A file that takes a few bytes and then no more, until there is room again."""

    def __init__(self, file):
        self._file, self.room = file, 5

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(data[: self.room])
        self.room -= written
        return written

    def fileno(self):
        return self._file.fileno()

    def close(self):
        self._file.close()


def test_a_full_disk_is_said_once_and_rows_wait_for_it(tmp_path):
    said = []
    with RunLog(tmp_path, after_step=-1, say=said.append) as log:
        log.training(1, {"loss": 0.5})
        full = log._files["metrics"]._file = FullDisk(log._files["metrics"]._file)
        for step in (2, 3):
            log.training(step, {"loss": 0.5})
        log.sync()
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"ste'
        full.room = 10**6
        log.training(4, {"loss": 0.5})
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert said == [
        f"warning[SKD-L06] {tmp_path}/metrics.jsonl: cannot be written (No space left on device); training goes on, "
        "and rows that were not written wait for the disk; free space"
    ]


def test_rows_that_still_wait_at_the_end_are_no_error(tmp_path):
    with RunLog(tmp_path, after_step=-1, say=lambda text: None) as log:
        log._files["metrics"]._file = FullDisk(log._files["metrics"]._file)
        log.training(1, {"loss": 0.5})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"ste'


def test_the_token_view_may_fail_too(tmp_path):
    said = []
    (tmp_path / "tokens").write_text("in the way")
    with RunLog(tmp_path, after_step=-1, say=said.append) as log:
        log.tokens(3, {"responses": []})
    assert len(said) == 1
    assert f"{tmp_path}/tokens: cannot be written" in said[0]


def test_a_validation_that_is_to_be_done_again_is_dropped(tmp_path):
    text = '{"step": 2}\n{"step": 2, "validation": {}}\n'
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "validation": {}}\n' + text)
    with RunLog(tmp_path, after_step=2, validated=False):
        pass
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 1, "validation": {}}, {"step": 2}]

import os
import signal

import pytest

from skd.errors import CheckpointError, ResourceError
from skd.train.lock import RunLock


def test_second_process_is_refused_by_name(tmp_path):
    with RunLock(tmp_path), pytest.raises(CheckpointError, match=f'"pid": {os.getpid()}') as caught, RunLock(tmp_path):
        pass
    assert caught.value.exit_code == 5
    assert caught.value.problems[0].code == "SKD-K16"


def test_lock_is_free_after_the_block(tmp_path):
    with RunLock(tmp_path):
        pass
    with RunLock(tmp_path):
        pass


def test_lock_of_a_killed_process_is_taken_over(tmp_path):
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with RunLock(tmp_path):
            os.write(told, b"x")
            signal.pause()
        os._exit(1)
    os.read(ready, 1)
    with pytest.raises(CheckpointError, match=f'"pid": {child}'), RunLock(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_where_the_run_directory_should_be(tmp_path, below):
    (tmp_path / "taken").write_text("a thesis")
    text = r"cannot be made or written to .*; set output to a directory"
    with pytest.raises(ResourceError, match=text), RunLock(tmp_path / f"taken{below}"):
        pass
    assert (tmp_path / "taken").read_text() == "a thesis"

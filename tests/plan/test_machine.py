"""Machines from files: right ones are read, wrong ones are refused with place and way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from skd.errors import ConfigError
from skd.plan import MACHINES, load_machine

GOOD = """\
name: laptop
source: a data sheet
memory_gib: 16
weights_gbs: {float32: 50, bfloat16: 50}
stream_gbs: 60
tflops: {float32: 2, bfloat16: 4}
launch_us: 5
"""


def test_a_file_is_a_machine_and_a_name_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(GOOD)
    found = load_machine(str(tmp_path / "m.yaml"))
    assert found.tflops.bfloat16 == 4
    assert found.overlap
    assert not found.measured
    assert load_machine("h100") is MACHINES["h100"]
    assert all("https://" in gpu.source for gpu in MACHINES.values())


def test_all_that_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path) -> None:
    wrong = GOOD.replace("stream_gbs: 60", "stream_gps: 60").replace("launch_us: 5", "launch_us: -5")
    (tmp_path / "m.yaml").write_text(wrong)
    with pytest.raises(ConfigError) as raised:
        load_machine(str(tmp_path / "m.yaml"))
    assert [problem.code for problem in raised.value.problems] == ["SKD-C17", "SKD-C06", "SKD-C05"]
    assert "m.yaml:7" in str(raised.value)
    assert "launch_us is -5, expected a number above 0" in str(raised.value)


def test_an_unknown_machine_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"write one of cpu, h100, .*, or the path of a \.yaml file"):
        load_machine("b300")

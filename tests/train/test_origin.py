"""Every start of a run says which code it was, and a damaged record stops none."""

import json

import pytest

from skd.train.checkpoint import TrainState
from skd.train.origin import record_start
from skd.versions import commit, versions


def state(step):
    return TrainState(
        step=step,
        samples_trained=0,
        epoch=0.0,
        total_steps=9,
        best_loss=None,
        best_step=None,
        config_digest="c",
        data_fingerprint="d",
        provenance={"student": {"path": "s"}},
        versions=versions(),
        validation_pending=False,
    )


def test_a_start_and_a_resume_are_both_there(tmp_path):
    for step in (0, 4):
        record_start(tmp_path, state(step))
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert [start["step"] for start in record["starts"]] == [0, 4]
    assert record["starts"][1]["commit"] == commit()
    assert record["starts"][0]["versions"]["torch"]
    assert record["starts"][0]["time"].endswith("+00:00")
    assert (record["config_digest"], record["data_fingerprint"]) == ("c", "d")
    assert record["models"] == {"student": {"path": "s"}}


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"starts": 3}', b"[" * 10_000])
def test_what_cannot_be_read_is_begun_again(tmp_path, damage):
    (tmp_path / "provenance.json").write_bytes(damage)
    record_start(tmp_path, state(2))
    assert [start["step"] for start in json.loads((tmp_path / "provenance.json").read_text())["starts"]] == [2]

"""Processes find each other within a minute, or say that they did not; and what they do is the same."""

import os
import socket

import pytest

from skd.errors import ConfigError, RemoteError
from skd.ranks import meeting
from tests.train.test_ranks import as_ranks


def test_processes_that_were_started_for_other_things_are_told_apart(tmp_path):
    def work(rank):
        facts = {"config": "same", "training set": f"of {rank % 2}", "checkpoint": f"{rank == 2}"}
        accelerator = meeting.meet(cpu=True)
        meeting.require_same({"config": "same"})
        with pytest.raises(ConfigError) as caught:
            meeting.require_same(facts)
        accelerator.wait_for_everyone()
        (tmp_path / str(rank)).write_text(str(caught.value))

    assert as_ranks(work, 3) == [0, 0, 0]
    for rank in range(3):
        assert (tmp_path / str(rank)).read_text() == (
            "error[SKD-P07] rank 1: another training set than rank 0; start all processes with the same\n"
            "error[SKD-P07] rank 2: another checkpoint than rank 0; start all processes with the same"
        )


def alone_among(size, tmp_path, monkeypatch, **place):
    """What one of so many processes says when nobody else comes."""
    monkeypatch.setattr(meeting, "MEETING_SECONDS", 1.0)

    def work(rank):
        os.environ |= {"WORLD_SIZE": str(size), **place}
        with pytest.raises(RemoteError) as caught:
            meeting.meet(cpu=True)
        assert caught.value.exit_code == 6
        (tmp_path / "said").write_text(str(caught.value))

    assert as_ranks(work, 1) == [0]
    return (tmp_path / "said").read_text()


def test_a_process_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch):
    said = alone_among(2, tmp_path, monkeypatch)
    assert said.startswith("error[SKD-P09] rank 0: the 2 processes did not find each other at 127.0.0.1:")
    assert said.endswith(
        "; look whether all were started, at WORLD_SIZE, at MASTER_ADDR, and whether MASTER_PORT is free"
    )


def test_a_port_that_is_taken_is_said(tmp_path, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = alone_among(2, tmp_path, monkeypatch, MASTER_PORT=str(other.getsockname()[1]))
    assert "SKD-P09" in said
    assert "address already in use" in said.lower()


def test_nobody_at_the_address_is_said(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    assert "SKD-P09] rank 1: " in alone_among(2, tmp_path, monkeypatch, RANK="1", LOCAL_RANK="1", MASTER_PORT=free)


def test_a_process_started_by_hand_is_alone():
    assert not meeting.several()
    accelerator = meeting.meet(cpu=True)
    meeting.require_same({"config": "any"})
    assert accelerator.num_processes == 1

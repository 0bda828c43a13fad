"""The table for many GPUs: what must hold of it whatever the rates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skd.cli import main
from skd.plan.machine import MACHINES
from skd.plan.scale import PAIRS, Layout, gathered, local, served
from skd.plan.shape import Shape

SMALL = Shape.llama(layers=2, hidden=64, inner=128, heads=2, key_heads=2, vocab_size=512, tied=True)
LAYOUT = Layout(replace(PAIRS["0.5B <- 7B"], student=SMALL, teacher=SMALL), 64, MACHINES["h100"])


def test_the_pairs_have_the_weights_that_their_names_say() -> None:
    sizes = [(pair.student.num_weights / 1e9, pair.teacher.num_weights / 1e9) for pair in PAIRS.values()]
    assert sizes == [pytest.approx((0.494, 7.62), rel=0.01), pytest.approx((8.03, 70.6), rel=0.01)]


def test_one_gpu_exchanges_nothing_and_more_of_them_have_fewer_rows() -> None:
    alone = local(replace(LAYOUT, gpus=1))
    assert alone.parts["exchange"].total == 0.0
    assert gathered(replace(LAYOUT, gpus=1)) is None
    assert alone.rows == 64 * local(LAYOUT).rows
    assert alone.seconds > local(LAYOUT).seconds


def test_a_large_teacher_takes_several_gpus_and_its_shards_are_fetched_at_every_look() -> None:
    large = replace(LAYOUT, models=PAIRS["8B <- 70B"])
    assert local(large).peak / 2**30 > large.machine.memory_gib
    shards, server = gathered(large), served(large)
    assert shards is not None
    assert server is not None
    assert shards.limit == "gather: links"
    assert server.note.endswith("4 together")
    assert served(replace(large, gpus=4)) is None


def test_the_table_is_labelled_a_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.plan.scale.PAIRS", {"tiny": LAYOUT.models})
    monkeypatch.setattr("skd.plan.scale.GPUS", (1, 1024))
    assert main(["plan", "--scale", "--machine", "a100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A model, not a measurement: a100, published peaks")
    assert lines[7].startswith("| tiny | 1 | local | 1,024 |")

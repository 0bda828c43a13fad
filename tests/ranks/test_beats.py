"""Who is late, and where a thread is."""

import re
import threading

import pytest

from skd.ranks.beats import Beat, Lateness, place_of
from tests.train.test_ranks import as_ranks


def beat(collectives, state="working", points=0):
    return Beat("here", 1, points, collectives, 3, "somewhere", state)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 6], [0]),  # the other one waits for it
        ([6, 5], [1]),
        ([6, 6], [0, 1]),  # a collective that does not end
        ([4, 5, 4, 5], [0, 2]),
    ],
)
def test_the_late_one_is_behind_and_makes_no_progress(counts, expected):
    lateness, beats = Lateness(), dict(enumerate(map(beat, counts)))
    for now in range(11):
        lateness.see(beats, now)
        assert lateness.late(now, 10) == (expected if now == 10 else [])


def test_whoever_waits_is_not_late_and_gets_the_whole_time_when_its_turn_comes():
    lateness = Lateness()
    for now in range(100):  # rank 0 has more to do, and does it
        lateness.see({0: beat(5, points=now), 1: beat(6)}, now)
        assert lateness.late(now, 10) == []
    for now in range(100, 110):  # what rank 1 did next has not been heard yet
        lateness.see({0: beat(8, points=now), 1: beat(6)}, now)
        assert lateness.late(now, 10) == []
    lateness.see({0: beat(8, points=now), 1: beat(6)}, 110)
    assert lateness.late(110, 10) == [1]


def test_whoever_is_stuck_is_late_though_nobody_waits_yet():
    lateness = Lateness()
    for now in range(11):
        lateness.see({0: beat(5, points=now), 1: beat(5)}, now)
    assert lateness.late(10, 10) == [1]


def test_whoever_has_left_is_not_waited_for():
    lateness = Lateness()
    for now in (0, 99):
        lateness.see({0: beat(7), 1: beat(5, "left"), 2: beat(7)}, now)
    assert lateness.late(99, 10) == [0, 2]
    for now in (0, 99):
        lateness.see({0: beat(7), 1: beat(5, "left")}, now)
    assert lateness.late(99, 10) == []


def test_nobody_is_late_where_collectives_are_not_counted():
    lateness = Lateness()
    for now in (0, 99):
        lateness.see({0: beat(-1), 1: beat(-1)}, now)
    assert lateness.late(99, 10) == []


def test_a_place_is_the_line_of_this_package():
    from skd.faults import hooked
    from skd.train.signals import in_a_round

    with hooked(lambda name: places.append(place_of(threading.get_ident()))):
        places = []
        in_a_round()
    (place,) = places
    assert re.fullmatch(r"train/signals\.py:\d+ in_a_round", place)
    assert place_of(-1) == "outside skd"


def test_collectives_are_counted_when_they_begin():
    def work(rank):
        import torch.distributed

        from skd.ranks.beats import collectives
        from skd.ranks.meeting import meet

        accelerator = meet(cpu=True)
        before = collectives()
        handle = torch.distributed.barrier(async_op=True) if rank == 0 else None
        assert collectives() == before + (rank == 0)
        handle = handle or torch.distributed.barrier(async_op=True)
        handle.wait()
        accelerator.wait_for_everyone()
        assert collectives() == before + 2

    assert as_ranks(work, 2) == [0, 0]

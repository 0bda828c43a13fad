"""The choice of the block: what it follows, and that responses do not follow it."""

import pytest

from skd.sampling.pace import LONGEST_BLOCK, Costs, Pace, expected_tokens


def _after(acceptance: float, *, rows: int = 8, student: int = 60, teacher: int = 130, device: str = "cpu") -> int:
    pace = Pace(Costs.by_size(student, teacher, device))
    pace.saw([1000], [round(1000 * (1.0 - acceptance))])
    return pace.block(rows)


def test_a_block_commits_what_its_drafts_give_one_by_one() -> None:
    for acceptance in (0.0, 0.3, 0.9):
        for block in (1, 2, 5):
            by_hand = sum(acceptance**before for before in range(block))
            assert expected_tokens(acceptance, block) == pytest.approx(by_hand)
    assert expected_tokens(1.0, 5) == 5


def test_drafts_that_are_rejected_make_short_blocks_and_kept_ones_long_blocks() -> None:
    blocks = [_after(acceptance) for acceptance in (0.2, 0.5, 0.8, 0.9, 0.97)]
    assert blocks == sorted(blocks)
    assert blocks[0] == 1
    assert blocks[-1] > 3


def test_a_dear_judgement_is_asked_for_less_often() -> None:
    assert _after(0.9, teacher=2000) > _after(0.9, teacher=60)
    assert _after(0.9, rows=1) >= _after(0.9, rows=64)
    assert _after(0.9, rows=64, device="cuda") > _after(0.9, rows=64, device="cpu")


def test_a_student_that_always_agrees_gets_the_longest_block() -> None:
    pace = Pace(Costs.by_size(1, 100, "cpu"))
    pace.saw([10_000], [0])
    assert pace.block(1) == LONGEST_BLOCK == pace.longest


def test_a_fixed_block_stays() -> None:
    pace = Pace(Costs.by_size(60, 130, "cpu"), 5)
    pace.saw([1000], [1000])
    assert pace.block(8) == pace.longest == 5

"""Costs measured with the sampler: that they are the line of the forwards, and leave the pair as it was."""

from dataclasses import replace

import pytest
import torch

from skd.sampling import calibrate
from skd.sampling.calibrate import measured_costs
from skd.sampling.pace import Costs
from skd.types import Prompts, Rollout, SamplerStats
from tests.sampling.cases import Case, assert_same, expected

PROMPTS = Prompts([[2, 3, 4], [5, 6], [7]], range(3))


@pytest.mark.parametrize("student", [(30.0, 2.0), (30.0, 0.0), (0.0, 2.0)])
@pytest.mark.parametrize(("rows", "cap"), [(6, 8), (64, 3), (2, 100)])
def test_a_machine_whose_forwards_are_lines_is_measured_as_these(monkeypatch, student, rows, cap):
    teacher = (50.0, 7.0)

    def on_that_machine(pair, prompts, *, block, slots, max_new_tokens, **others):
        assert len(prompts) == slots
        rounds = -(-max_new_tokens // block)
        return Rollout(
            *([],) * 3,
            truncated=torch.zeros(0),
            sample_ids=[],
            response_index=[],
            stats=SamplerStats(
                rounds=rounds,
                seconds_draft=rounds * block * (student[0] + student[1] * slots),
                seconds_judge=rounds * (teacher[0] + teacher[1] * slots * block),
            ),
        )

    monkeypatch.setattr(calibrate, "interleave", on_that_machine)
    costs = measured_costs(Case().pair, PROMPTS, rows, cap)
    assert [*costs.student, *costs.teacher] == pytest.approx([*student, *teacher])


def test_one_row_has_no_slope_of_the_student_and_none_is_negative():
    assert calibrate._line(3.0, 3.0, 1) == (3.0, 0.0)
    assert calibrate._line(3.0, 2.0, 8) == (3.0, 0.0)
    assert calibrate._line(1.0, 16.0, 8) == (0.0, 2.0)


def test_a_real_pair_is_measured_and_left_alone():
    case = Case()
    costs = measured_costs(case.pair, PROMPTS, 4)
    assert sum(costs.student) > 0 < sum(costs.teacher)
    assert case.pair.costs is None
    assert case.pair.stop_ids
    assert_same(case.run(), expected(case))


def test_responses_do_not_follow_the_costs_and_blocks_do():
    case, rounds = Case(), []
    for look in (1e6, 0.0):
        rollout = case.run(replace(case.pair, costs=Costs((1.0, 0.0), (look, 0.0))))
        assert_same(rollout, expected(case))
        rounds.append(rollout.stats.rounds)
    assert rounds[0] < rounds[1]

"""The distribution of whole responses, against their enumeration; and the gates with a coin, a state or a schedule."""

from __future__ import annotations

import functools

import pytest

import skd
from skd.sampling import Interpolated, MinProb, SwitchOnce, TopK, Warp
from skd.schedule import Schedule
from skd.types import STUDENT, TEACHER, Prompts
from tests.oracles import enumerate as exact
from tests.oracles import interleave as oracle
from tests.sampling import cases
from tests.sampling.cases import Case, assert_same, expected
from tests.tiny import EOS_ID

V, CAP, PROMPT = 5, 3, (2, 4)
STUDENT_WARP, TEACHER_WARP = (0.8, 0.9), (0.6, 1.0)
SMALL = Case(both=(("vocab_size", V),))


@functools.cache
def raw_logits(which: int, prefix: tuple[int, ...]):
    return oracle.next_logits(SMALL.models[which], [*PROMPT, *prefix], V)[0]


def teacher_logits(prefix):
    return raw_logits(0, prefix)


def student_logits(prefix):
    return raw_logits(1, prefix)


def sampled(gate, block=5, num_responses=4_000):
    rollout = skd.interleave(
        SMALL.pair,
        Prompts([list(PROMPT)], [0]),
        gate=gate,
        block=block,
        student_warp=Warp(*STUDENT_WARP),
        teacher_warp=Warp(*TEACHER_WARP),
        max_new_tokens=CAP,
        slots=2_000,
        responses_per_prompt=num_responses,
        seed=3,
    )
    ids, authors = rollout.response_ids, rollout.authors
    return exact.counts([list(zip(i.tolist(), a.tolist(), strict=True)) for i, a in zip(ids, authors, strict=True)])


@pytest.mark.parametrize(("block", "num_responses"), [(3, 50_000), (1, 4_000)])
def test_skd_responses_have_the_enumerated_distribution(block, num_responses):
    step = exact.skd_step(student_logits, teacher_logits, 2, STUDENT_WARP, TEACHER_WARP)
    truth = exact.responses(step, CAP, frozenset({EOS_ID}))
    observed = sampled(TopK(2), block, num_responses)
    assert sum(observed.values()) == num_responses
    assert num_responses < 50_000 or sum(len(response) * n for response, n in observed.items()) > 100_000
    assert exact.chi_square_p(observed, truth) > 1e-3


@pytest.mark.parametrize("g", [0.1, 0.6, 1.0])
def test_ipd_written_as_a_gate_has_the_mixtures_distribution(g):
    step = exact.ipd_step(student_logits, teacher_logits, g, STUDENT_WARP, TEACHER_WARP)
    truth = exact.responses(step, CAP, frozenset({EOS_ID}))
    assert exact.chi_square_p(sampled(Interpolated(g)), truth) > 1e-3


def test_the_chi_square_would_see_another_distribution():
    step = exact.skd_step(student_logits, teacher_logits, 2, STUDENT_WARP, TEACHER_WARP)
    truth = exact.responses(step, CAP, frozenset({EOS_ID}))
    assert exact.chi_square_p(sampled(TopK(3)), truth) < 1e-6


@pytest.fixture
def with_gate(monkeypatch):
    def add(name, gate, truth):
        monkeypatch.setitem(cases.GATES, name, (gate, truth))

    return add


@pytest.mark.parametrize(("block", "slots"), [(1, 2), (5, 2), (8, 7)])
def test_ipd_gives_the_oracles_ids(block, slots, with_gate):
    with_gate("ipd", Interpolated(0.4), oracle.ipd(0.4))
    case = Case(gate="ipd", student_warp=(1.0, 1.0))
    truth = expected(case)
    assert {author for written in truth for author in written.authors} == {STUDENT, TEACHER}
    assert_same(case.run(block=block, slots=slots), truth)


@pytest.mark.parametrize(("block", "slots"), [(1, 2), (5, 2), (8, 7)])
def test_a_gate_with_state_switches_once_and_for_good(block, slots, with_gate):
    with_gate("switch", SwitchOnce(1.3), oracle.switch_once(1.3))
    case = Case(gate="switch", responses=2)
    truth = expected(case)
    switches = [written.authors.index(TEACHER) for written in truth if TEACHER in written.authors]
    assert len(set(switches)) > 1
    assert all(written.authors == sorted(written.authors) for written in truth)
    assert_same(case.run(block=block, slots=slots), truth)


@pytest.mark.parametrize(("block", "slots"), [(1, 2), (5, 2), (8, 7)])
def test_k_falls_along_the_response_whatever_the_block(block, slots, with_gate):
    with_gate("adaptive", TopK(Schedule(40, 2, over="response", tokens=8)), oracle.falling_top_k(40, 2, 8))
    case = Case(gate="adaptive")
    truth = expected(case)
    late = [author for written in truth for author in written.authors[8:]]
    assert late.count(TEACHER) > len(late) / 2
    assert_same(case.run(block=block, slots=slots), truth)


@pytest.mark.parametrize(("block", "slots"), [(1, 2), (5, 2), (8, 7)])
def test_ca_opd_replaces_by_the_teachers_most_probable_token(block, slots, with_gate):
    with_gate("min_prob", MinProb(0.02), oracle.min_prob(0.02))
    case = Case(gate="min_prob", teacher_warp=(0.0, 1.0))
    truth = expected(case)
    assert {author for written in truth for author in written.authors} == {STUDENT, TEACHER}
    assert_same(case.run(block=block, slots=slots), truth)

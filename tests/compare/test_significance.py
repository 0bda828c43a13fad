"""The paired tests agree with their slow twins, with scipy, and with examples done by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skd.compare.significance import crossed_interval, flip_p, holm, paired_bootstrap, student_quantile
from skd.evaluate.statistics import mcnemar_p
from tests.oracles import pairing

DIFFERENCES = st.integers(1, 3).flatmap(
    lambda seeds: st.integers(0, 8).flatmap(
        lambda items: st.lists(
            st.lists(st.sampled_from([-1, 0, 1]), min_size=items, max_size=items), min_size=seeds, max_size=seeds
        )
    )
)


@given(DIFFERENCES)
def test_flips_agree_with_every_sign_pattern_written_down(rows):
    assert flip_p(np.array(rows, dtype=float)) == pytest.approx(pairing.flips(rows), rel=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
def test_with_one_seed_it_is_mcnemars_exact_test(gained, lost, same):
    row = np.array([[1.0] * gained + [-1.0] * lost + [0.0] * same])
    assert flip_p(row) == pytest.approx(pairing.mcnemar(gained, lost), rel=1e-9)
    before, after = [False] * gained + [True] * lost + [True] * same, [True] * gained + [False] * lost + [True] * same
    assert flip_p(row) == pytest.approx(mcnemar_p(before, after), rel=1e-9)


def test_mcnemar_by_hand():
    # 5 gained, 1 lost: 2 * (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    assert flip_p(np.array([[1.0] * 5 + [-1.0]])) == pytest.approx(14 / 64)


def test_seeds_that_answer_alike_count_once():
    one = np.array([[1.0] * 6 + [-1.0] * 2 + [0.0] * 10])
    assert flip_p(np.repeat(one, 3, axis=0)) == pytest.approx(flip_p(one))
    # Taken for 24 independent changes, it would look far more certain.
    assert flip_p(np.tile(one, (1, 3))) < flip_p(one) / 3


def test_scores_between_right_and_wrong_are_flipped_by_drawing():
    scores = np.random.default_rng(3).normal(0.25, 1.0, size=(1, 60))
    drawn = flip_p(scores)
    expected = stats.permutation_test(
        (scores[0], np.zeros(60)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert drawn == pytest.approx(expected, abs=0.02)
    assert flip_p(scores) == drawn


def test_a_thousand_changed_items_stay_exact():
    difference = np.array([[1.0] * 900 + [-1.0] * 800, [1.0] * 850 + [-1.0] * 850])
    assert 0.0 < flip_p(difference) < 1.0
    assert flip_p(np.array([[1.0] * 900 + [-1.0] * 800])) == pytest.approx(stats.binomtest(900, 1700).pvalue, rel=1e-6)


@given(st.lists(st.floats(0, 1), min_size=0, max_size=7))
def test_holm_agrees_with_the_step_down_procedure(ps):
    assert holm(ps) == pytest.approx(pairing.holm(ps))


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04: times 3, 2, 1, and never below the one before.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_bootstrap_agrees_with_redrawing_the_items_themselves(seed):
    rows = np.random.default_rng(seed).integers(-1, 2, size=(3, 300)).astype(float)
    slow = pairing.bootstrap(rows, 4000, seed=1)
    assert paired_bootstrap(rows) == pytest.approx(slow, abs=0.012)


def test_bootstrap_pairs_and_has_no_interval_without_items():
    same = np.zeros((2, 50))
    assert paired_bootstrap(same) == (0.0, 0.0)
    assert all(map(math.isnan, paired_bootstrap(np.zeros((2, 0)))))


@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.995])
@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.0, 2.7, 5.0, 30.0, 999.0])
def test_quantiles_of_t_agree_with_scipy(p, freedom):
    assert student_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-3)


def test_with_items_that_agree_the_crossed_interval_is_the_t_interval_of_the_seeds():
    by_seed = np.array([0.02, 0.05, 0.11])
    low, high = crossed_interval(np.repeat(by_seed[:, None], 400, axis=1))
    expected = stats.t.interval(0.95, 2, loc=by_seed.mean(), scale=stats.sem(by_seed))
    assert (low, high) == pytest.approx(expected, rel=1e-4)


def test_with_seeds_that_agree_it_is_that_of_the_items():
    row = np.random.default_rng(0).integers(-1, 2, size=400).astype(float)
    low, high = crossed_interval(np.repeat(row[None], 3, axis=0))
    expected = stats.t.interval(0.95, 399, loc=row.mean(), scale=stats.sem(row))
    assert (low, high) == pytest.approx(expected, rel=1e-3)


def test_one_seed_gives_no_interval_over_seeds():
    assert crossed_interval(np.zeros((1, 10))) is None
    assert crossed_interval(np.zeros((3, 10))) == (0.0, 0.0)


def test_the_crossed_interval_covers_what_it_says():
    """Methods that do not differ, items and seeds drawn anew: 0 is inside in about 95 of 100, never much less."""
    draws = np.random.default_rng(5)
    inside = 0
    for _ in range(400):
        seeds, items = draws.normal(0, 0.05, size=(3, 1)), draws.normal(0, 0.3, size=(1, 100))
        low, high = crossed_interval(seeds + items + draws.normal(0, 0.5, size=(3, 100)))
        inside += low <= 0 <= high
    assert inside >= 0.92 * 400

"""Intervals and tests agree with scipy, with published numbers and with the slow definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skd.evaluate.statistics import bootstrap_mean, mcnemar_p, paired_difference, wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (466, 1000), (10, 10), (1, 1), (999, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_agrees_with_scipy(successes, n, level):
    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson_interval(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_a_published_example():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@given(st.integers(1, 5000), st.data())
def test_wilson_holds_the_score_and_stays_inside(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


def test_no_items_is_no_score():
    assert all(math.isnan(x) for x in wilson_interval(0, 0))
    assert all(math.isnan(x) for x in paired_difference([], []))
    assert mcnemar_p([], []) == 1.0


@pytest.mark.parametrize(("successes", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 0.0), (1, 2, 1.0)])
def test_impossible_inputs_are_refused(successes, n, level):
    with pytest.raises(ValueError):
        wilson_interval(successes, n, level)


def _judgements(n, p_before, p_after, seed=0):
    random = np.random.default_rng(seed)
    ease = random.random(n)
    return list(ease < p_before), list(ease + 0.2 * random.random(n) < p_after + 0.1)


def test_paired_difference_agrees_with_resampling_the_items_themselves():
    before, after = _judgements(400, 0.45, 0.6)
    difference, low, high = paired_difference(before, after)
    gains = np.asarray(after, float) - np.asarray(before, float)
    index = np.random.default_rng(7).integers(0, 400, size=(10_000, 400))
    slow_low, slow_high = np.quantile(gains[index].mean(axis=1), [0.025, 0.975])
    assert difference == pytest.approx(gains.mean())
    assert (low, high) == pytest.approx((slow_low, slow_high), abs=0.004)


def test_paired_difference_agrees_with_scipy():
    before, after = _judgements(300, 0.3, 0.5, seed=3)
    gains = np.asarray(after, float) - np.asarray(before, float)
    expected = stats.bootstrap((gains,), np.mean, n_resamples=10_000, method="percentile", rng=5).confidence_interval
    assert paired_difference(before, after)[1:] == pytest.approx((expected.low, expected.high), abs=0.007)


def test_pairing_is_used():
    # 50 % on both sides, the same items right: nothing can differ, whatever is redrawn.
    same = [True, False] * 100
    assert paired_difference(same, same) == (0.0, 0.0, 0.0)
    _, low, high = paired_difference(same, [not x for x in same])
    assert high - low > 0.2


def test_direction_seed_and_lengths():
    before, after = _judgements(200, 0.2, 0.7)
    assert paired_difference(before, after, seed=1) == paired_difference(before, after, seed=1)
    assert paired_difference(before, after)[1] > 0
    assert paired_difference(after, before)[2] < 0
    for function in (paired_difference, mcnemar_p):
        with pytest.raises(ValueError, match="same items, got 2 and 1"):
            function([True, False], [True])


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_mcnemar_agrees_with_the_binomial_test(gained, lost, same):
    before = [False] * gained + [True] * lost + [True] * same
    after = [True] * gained + [False] * lost + [True] * same
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_p(before, after) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_a_thousand_changes_does_not_overflow():
    assert mcnemar_p([False] * 3000, [True] * 3000) == pytest.approx(0.0, abs=1e-300)


def test_bootstrap_of_a_mean():
    low, high = bootstrap_mean([0.0, 1.0] * 200)
    # Normal approximation: the standard error is 0.5 / 20.
    assert abs(low - (0.5 - 1.96 * 0.025)) < 0.005
    assert abs(high - (0.5 + 1.96 * 0.025)) < 0.005
    assert bootstrap_mean([0.25]) == (0.25, 0.25)
    assert bootstrap_mean([0.1, 0.4]) == bootstrap_mean([0.1, 0.4])
    assert all(map(math.isnan, bootstrap_mean([])))

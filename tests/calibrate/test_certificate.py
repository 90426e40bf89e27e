"""The exact rule against the published table, against scipy, against simulation, and against its rivals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from lesion_triage.calibrate.certificate import (
    allowed_misses,
    certified_threshold,
    minimum_positives,
    require_enough_positives,
    sensitivity_lower_bound,
    sensitivity_verdict,
)
from lesion_triage.errors import CalibrationError

COUNTS = st.integers(1, 1500)
RATES = st.floats(0.5, 0.995)


@pytest.mark.parametrize(
    ("positives", "misses"),
    [(59, 0), (93, 1), (124, 2), (181, 4), (234, 6), (300, 8), (350, 10), (500, 16), (1000, 38)],
)
def test_allowed_misses_are_those_of_the_published_table(positives, misses):
    assert allowed_misses(positives, 0.95, 0.95) == misses


@pytest.mark.parametrize(
    ("target", "positives"), [(0.90, 29), (0.95, 59), (0.97, 99), (0.98, 149), (0.99, 299)]
)
def test_zero_miss_minimum_is_the_published_one(target, positives):
    assert minimum_positives(target, 0.95) == positives
    assert allowed_misses(positives, target, 0.95) == 0
    assert allowed_misses(positives - 1, target, 0.95) is None


def test_minimum_with_misses_is_where_the_table_steps():
    assert [minimum_positives(0.95, 0.95, misses) for misses in (1, 2)] == [93, 124]
    assert allowed_misses(92, 0.95, 0.95) == 0


def test_without_positives_there_is_no_certificate():
    assert allowed_misses(0, 0.95, 0.95) is None


@given(positives=COUNTS, target=RATES, confidence=RATES)
def test_allowed_misses_are_the_largest_that_scipy_grants(positives, target, confidence):
    granted = allowed_misses(positives, target, confidence)
    tails = binom.cdf(np.arange(positives), positives, 1 - target)
    # Equality to the last bit is a coin toss of rounding; no one's certificate hangs on it.
    low, high = (int((tails <= (1 - confidence) * (1 + slack)).sum()) - 1 for slack in (-1e-12, 1e-12))
    assert low <= (-1 if granted is None else granted) <= high


@given(positives=COUNTS, share=st.floats(0, 0.999), confidence=st.floats(0.5, 0.999))
def test_lower_bound_agrees_with_the_beta_quantile_to_twelve_digits(positives, share, confidence):
    misses = int(share * positives)
    expected = beta.ppf(1 - confidence, positives - misses, misses + 1)
    assert sensitivity_lower_bound(positives, misses, confidence) == pytest.approx(expected, rel=1e-12)


def test_lower_bound_is_zero_when_all_are_missed():
    assert sensitivity_lower_bound(7, 7, 0.95) == 0.0


@given(positives=st.integers(59, 800))
@settings(max_examples=30, deadline=None)
def test_misses_allowed_are_those_whose_lower_bound_reaches_the_target(positives):
    misses = allowed_misses(positives, 0.95, 0.95)
    assert sensitivity_lower_bound(positives, misses, 0.95) >= 0.95
    assert sensitivity_lower_bound(positives, misses + 1, 0.95) < 0.95


@pytest.mark.parametrize(
    ("target", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.95, 0.0), (0.95, 1.0), (math.nan, 0.9)]
)
def test_rates_outside_the_unit_interval_are_refused(target, confidence):
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        allowed_misses(100, target, confidence)


SCORES = st.one_of(
    st.lists(st.floats(0, 1), min_size=59, max_size=200),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=59, max_size=200),
    st.lists(st.just(0.3), min_size=59, max_size=100),
    st.lists(st.floats(-1e308, 1e308), min_size=59, max_size=120),
    st.lists(st.floats(0, 1e-300), min_size=59, max_size=120),
    st.lists(st.sampled_from([0.1, 0.7, math.inf]), min_size=59, max_size=120),
)


@given(scores=SCORES)
def test_no_more_misses_than_allowed_and_no_higher_threshold_would_do(scores):
    scores = np.array(scores)
    if not np.isfinite(scores).any():
        with pytest.raises(CalibrationError, match="none of the"):
            certified_threshold(scores, 0.95, 0.95)
        return
    threshold, allowed, seen = certified_threshold(scores, 0.95, 0.95)
    assert math.isfinite(threshold)
    assert threshold in scores
    assert seen == np.count_nonzero(scores < threshold) <= allowed
    higher = scores[np.isfinite(scores) & (scores > threshold)]
    if higher.size:
        assert np.count_nonzero(scores < higher.min()) > allowed


@given(seed=st.integers(0, 1000))
def test_order_does_not_matter_and_the_input_is_left_alone(seed):
    scores = np.random.default_rng(seed).random(120)
    shuffled = scores.copy()
    np.random.default_rng(seed + 1).shuffle(shuffled)
    before = shuffled.copy()
    assert certified_threshold(scores, 0.95, 0.95) == certified_threshold(shuffled, 0.95, 0.95)
    assert np.array_equal(before, shuffled)


def test_abstentions_count_as_referred():
    scores = np.concatenate([np.linspace(0.1, 0.9, 20), np.full(80, np.inf)])
    threshold, allowed, seen = certified_threshold(scores, 0.95, 0.95)
    assert (allowed, seen) == (1, 1)
    assert threshold == scores[1]


def test_threshold_falls_back_to_the_largest_score_when_nearly_all_abstain():
    scores = np.array([0.4] + [np.inf] * 99)
    threshold, allowed, seen = certified_threshold(scores, 0.95, 0.95)
    assert (threshold, allowed, seen) == (0.4, 1, 0)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_score_that_is_no_number_is_refused_before_sorting(value):
    with pytest.raises(CalibrationError, match="1 of 100 positive scores"):
        certified_threshold(np.array([value] + [0.5] * 99), 0.95, 0.95)


def test_too_few_positives_are_told_how_many_it_takes():
    with pytest.raises(CalibrationError) as caught:
        require_enough_positives(41, 0.95, 0.95, unit="lesion")
    assert str(caught.value) == (
        "41 lesions in split 'calibration' need an in-person visit; certifying sensitivity 0.95 at "
        "confidence 0.95 takes at least 59. Enlarge the split or lower calibrate.target_sensitivity."
    )


def test_a_table_of_scores_is_refused():
    with pytest.raises(CalibrationError, match="one score per positive case"):
        certified_threshold(np.ones((60, 2)), 0.95, 0.95)


POOLS = {
    "continuous": lambda rng: rng.normal(size=20_000),
    "heavily tied": lambda rng: np.rint(rng.normal(size=20_000) * 4) / 4,
    "few levels": lambda rng: rng.choice([0.1, 0.2, 0.3, 0.9], p=[0.02, 0.05, 0.33, 0.6], size=20_000),
    "one in ten abstained": lambda rng: np.where(rng.random(20_000) < 0.1, np.inf, rng.normal(size=20_000)),
}


def draws_from(pool, cases, draws, rng):
    return np.sort(pool[rng.integers(0, pool.size, size=(draws, cases))], axis=1)


def pool_sensitivity(pool, thresholds):
    return 1 - np.searchsorted(np.sort(pool), thresholds, side="left") / pool.size


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("cases", [59, 140, 300])
def test_promise_is_broken_no_more_often_than_the_confidence_allows(name, cases):
    rng = np.random.default_rng(7)
    pool = POOLS[name](rng)
    draws = draws_from(pool, cases, 1000, rng)
    thresholds = np.array([certified_threshold(draw, 0.95, 0.95)[0] for draw in draws])
    broken = np.count_nonzero(pool_sensitivity(pool, thresholds) < 0.95)
    assert broken <= binom.ppf(0.999, 1000, 0.05)


@pytest.mark.parametrize("cases", [140, 300])
def test_empirical_quantile_breaks_the_promise_in_about_half_of_all_draws(cases):
    rng = np.random.default_rng(7)
    pool = POOLS["continuous"](rng)
    thresholds = np.quantile(draws_from(pool, cases, 1000, rng), 0.05, axis=1)
    assert np.mean(pool_sensitivity(pool, thresholds) < 0.95) > 0.3


def test_bound_for_the_misses_allowed_holds_where_one_for_the_misses_seen_fails():
    """With ties fewer misses are seen than allowed, and the draw chose their number with the threshold."""
    rng = np.random.default_rng(3)
    pool = np.repeat([0.0, 0.5, 1.0], [1050, 3750, 95_200])
    draws = draws_from(pool, 300, 4000, rng)
    found = [certified_threshold(draw, 0.95, 0.95) for draw in draws]
    truth = pool_sensitivity(pool, np.array([threshold for threshold, _, _ in found]))
    bound = np.array([sensitivity_lower_bound(300, misses, 0.95) for misses in range(9)])
    limit = binom.ppf(0.999, 4000, 0.05)
    assert np.count_nonzero(truth < bound[[allowed for _, allowed, _ in found]]) <= limit
    assert np.count_nonzero(truth < bound[[seen for _, _, seen in found]]) > limit


@pytest.mark.parametrize("positives", [10, 59, 93, 140, 400])
@pytest.mark.parametrize("target", [0.9, 0.95])
def test_verdict_on_an_old_threshold_is_that_of_two_exact_tests(positives, target):
    for misses in range(positives + 1):
        few = binom.cdf(misses, positives, 1 - target) <= 0.05
        many = binom.sf(misses - 1, positives, 1 - target) < 0.05
        expected = "holds" if few else "fails" if many else "undecided"
        assert sensitivity_verdict(positives, misses, target, 0.95) == expected


def test_verdict_on_impossible_counts_is_refused():
    with pytest.raises(CalibrationError, match="expected 0 to 5 misses"):
        sensitivity_verdict(5, 6, 0.95, 0.95)


@pytest.mark.parametrize(
    ("positives", "misses"),
    [(20_000, 1000), (20_000, 1001), (200_000, 9_700), (10**6, 50_000), (10**7, 5 * 10**6)],
)
def test_bound_for_many_misses_is_scipys(positives, misses):
    expected = beta.ppf(0.05, positives - misses, misses + 1)
    assert sensitivity_lower_bound(positives, misses, 0.95) == pytest.approx(expected, rel=1e-9)

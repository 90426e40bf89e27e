"""The laws against scipy, against the published limit, and against enumeration of every possible draw."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom, hypergeom

from lesion_triage.proof import exact_distributions as exact


@given(trials=st.integers(1, 2000), share=st.floats(0, 1), chance=st.floats(0.001, 0.999))
@settings(max_examples=60, deadline=None)
def test_binomial_tail_is_that_of_scipy(trials, share, chance):
    successes = int(share * trials)
    assert exact.binomial_tail(successes, trials, chance) == pytest.approx(
        binom.cdf(successes, trials, chance), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize(
    ("successes", "trials", "chance", "expected"),
    [(-1, 10, 0.5, 0.0), (10, 10, 0.5, 1.0), (9, 10, 1.0, 0.0), (10, 10, 1.0, 1.0), (0, 10, 0.0, 1.0)],
)
def test_binomial_tail_at_the_borders(successes, trials, chance, expected):
    assert exact.binomial_tail(successes, trials, chance) == expected


@pytest.mark.parametrize("positives", [58, 59, 93, 140, 300, 1000])
def test_granted_misses_are_the_largest_that_scipy_grants(positives):
    tails = binom.cdf(np.arange(positives), positives, 0.05)
    assert exact.granted_misses(positives, 0.95, 0.95) == int((tails <= 0.05).sum()) - 1


def test_limit_of_chance_is_the_published_one():
    assert exact.most_by_chance(1000, 0.05) == 73


@given(trials=st.integers(1, 5000), chance=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_limit_of_chance_is_the_quantile_of_scipy(trials, chance):
    assert exact.most_by_chance(trials, chance) == binom.ppf(0.999, trials, chance)


@given(positives=st.integers(1, 200), to_come=st.integers(0, 200), share=st.floats(0, 0.999))
@settings(max_examples=40, deadline=None)
def test_future_misses_are_beta_binomial(positives, to_come, share):
    misses = int(share * positives)
    expected = betabinom.pmf(np.arange(to_come + 1), to_come, misses + 1, positives - misses)
    np.testing.assert_allclose(
        exact.future_misses_distribution(positives, to_come, misses), expected, rtol=1e-8, atol=1e-13
    )


@given(cases=st.integers(1, 300), marked=st.floats(0, 1), drawn=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_marked_cases_among_those_drawn_are_hypergeometric(cases, marked, drawn):
    marked, drawn = int(marked * cases), int(drawn * cases)
    expected = hypergeom.pmf(np.arange(marked + 1), cases, marked, drawn)
    np.testing.assert_allclose(
        exact.hypergeometric_distribution(marked, cases, drawn), expected, rtol=1e-8, atol=1e-13
    )


SMALL = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=2, max_size=4)


@given(drawn_from=SMALL, judged_on=SMALL, misses=st.integers(0, 3), target=st.sampled_from([0.5, 0.7, 0.9]))
@settings(max_examples=60, deadline=None)
def test_violation_probability_is_the_share_of_all_possible_draws(drawn_from, judged_on, misses, target):
    size = 4
    judged = np.array(judged_on)
    thresholds = np.array([sorted(drawn)[misses] for drawn in product(drawn_from, repeat=size)])
    violations = [(judged >= threshold).sum() / judged.size < target for threshold in thresholds]
    assert exact.violation_probability(np.array(drawn_from), judged, size, misses, target) == pytest.approx(
        np.mean(violations), abs=1e-12
    )


@given(population=st.lists(st.floats(0, 1), min_size=1, max_size=40), target=st.floats(0.05, 0.99))
def test_the_critical_threshold_keeps_the_target_and_the_next_score_does_not(population, target):
    scores = np.array(population)
    critical = exact.critical(scores, target)
    assert np.mean(scores >= critical) >= target
    assert np.mean(scores > critical) < target


def test_rates_count_a_tie_as_referred():
    scores = np.array([0.1, 0.2, 0.2, 0.3])
    assert exact.sensitivity(scores, 0.2) == 0.75
    assert exact.specificity(scores, 0.2) == 0.25


def test_a_count_agrees_with_its_own_chance_and_not_with_another():
    assert exact.agrees(50, 1000, 0.05)
    assert not exact.agrees(50, 1000, 0.1)
    assert not exact.agrees(50, 1000, 0.02)

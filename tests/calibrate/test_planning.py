"""Plans against the published table, scipy, brute force, and simulation of ``certified_threshold``."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, binom, norm

from lesion_triage.calibrate.certificate import allowed_misses, certified_threshold
from lesion_triage.calibrate.planning import (
    Binormal,
    EmpiricalPopulation,
    binomial_cdf,
    bonferroni_confidence,
    forecast,
    joint_forecast,
    positives_for_power,
    power,
    sample_size_steps,
)
from lesion_triage.errors import CalibrationError

COUNTS = st.integers(1, 1500)
AUROCS = st.floats(0.5, 0.999)


@st.composite
def counts_and_misses(draw):
    positives = draw(COUNTS)
    return positives, draw(st.integers(0, positives - 1))


def test_staircase_is_the_published_one():
    steps = sample_size_steps(0.95, 0.95, 8)
    assert [step.positives for step in steps[:7]] == [59, 93, 124, 153, 181, 208, 234]
    published = {59: 0, 93: 1, 124: 2, 181: 4, 234: 6, 300: 8}
    for positives, misses in published.items():
        assert steps[misses].positives <= positives <= steps[misses].last


@pytest.mark.parametrize(("positives", "misses"), [(350, 10), (500, 16), (1000, 38)])
def test_staircase_holds_the_larger_published_numbers(positives, misses):
    step = sample_size_steps(0.95, 0.95, misses)[-1]
    assert step.positives <= positives <= step.last


@pytest.mark.parametrize(
    ("target", "positives"), [(0.90, 29), (0.95, 59), (0.97, 99), (0.98, 149), (0.99, 299)]
)
def test_zero_miss_step_is_the_published_minimum(target, positives):
    (step,) = sample_size_steps(target, 0.95, 0)
    assert (step.misses, step.positives, step.missed_share) == (0, positives, 0.0)


def test_bound_of_a_step_is_the_beta_quantile_and_reaches_the_target():
    for step in sample_size_steps(0.95, 0.9, 12):
        expected = beta.ppf(0.1, step.positives - step.misses, step.misses + 1)
        assert step.lower_bound == pytest.approx(expected, rel=1e-12)
        assert step.lower_bound >= 0.95
        assert allowed_misses(step.last, 0.95, 0.9) == step.misses
        assert allowed_misses(step.last + 1, 0.95, 0.9) == step.misses + 1


@given(case=counts_and_misses(), rate=st.floats(0, 1))
@settings(max_examples=300)
def test_binomial_law_agrees_with_scipy(case, rate):
    positives, misses = case
    assert binomial_cdf(misses, positives, rate) == pytest.approx(
        binom.cdf(misses, positives, rate), abs=1e-11
    )


def test_binomial_law_takes_many_rates_at_once_and_its_ends():
    rates = np.array([[0.0, 0.01], [0.4, 1.0]])
    assert binomial_cdf(3, 50, rates) == pytest.approx(binom.cdf(3, 50, rates), abs=1e-13)
    assert float(binomial_cdf(50, 50, 0.3)) == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("positives", [59, 92, 93, 140, 500, 1000])
def test_sensitivity_obtained_follows_the_beta_law(positives):
    found = forecast(positives, 0.95, 0.95, Binormal(0.9))
    law = beta(positives - found.misses, found.misses + 1)
    assert found.sensitivity.mean == pytest.approx(law.mean(), rel=1e-12)
    expected = law.ppf([0.05, 0.5, 0.95])
    obtained = (found.sensitivity.low, found.median_sensitivity, found.sensitivity.high)
    assert obtained == pytest.approx(tuple(expected), rel=1e-12)
    assert found.sensitivity.low >= 0.95


@pytest.mark.parametrize("positives", [59, 140, 300])
def test_certified_thresholds_obtain_what_was_forecast(positives):
    """2,000 draws from normal scores: mean, quantiles and specificity of ``certified_threshold`` itself."""
    draws, population = 2000, Binormal(0.944)
    scores = np.random.default_rng(1).normal(population.separation, 1, (draws, positives))
    thresholds = np.array([certified_threshold(row, 0.95, 0.95)[0] for row in scores])
    sensitivity, specificity = norm.sf(thresholds - population.separation), norm.cdf(thresholds)
    found = forecast(positives, 0.95, 0.95, population)
    for values, spread in ((sensitivity, found.sensitivity), (specificity, found.specificity)):
        assert abs(values.mean() - spread.mean) < 4 * values.std() / math.sqrt(draws)
        for level, quantile in ((0.05, spread.low), (0.95, spread.high)):
            below = np.count_nonzero(values < quantile)
            assert binom.ppf(1e-4, draws, level) <= below <= binom.ppf(1 - 1e-4, draws, level)


def specificity_by_quadrature(positives, misses, auroc, groups=1):
    """Density of the best of several Beta draws, integrated by scipy over the sensitivity."""
    separation, law = math.sqrt(2) * norm.ppf(auroc), beta(positives - misses, misses + 1)

    def integrand(s):
        return norm.cdf(separation - norm.ppf(s)) * groups * law.cdf(s) ** (groups - 1) * law.pdf(s)

    points = law.ppf([1e-14, 0.01, 0.5, 0.99])
    pieces = zip(points, [*points[1:], 1], strict=True)
    return sum(quad(integrand, low, high, epsabs=1e-12, limit=200)[0] for low, high in pieces)


@pytest.mark.parametrize("auroc", [0.5, 0.8, 0.944, 0.99])
@pytest.mark.parametrize(("positives", "misses"), [(59, 0), (140, 2), (1000, 38), (5000, 223), (1, 0)])
def test_binormal_specificity_agrees_with_adaptive_quadrature(positives, misses, auroc):
    expected = specificity_by_quadrature(positives, misses, auroc)
    assert Binormal(auroc).expected_specificity(positives, misses) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("groups", [2, 5, 20])
def test_specificity_of_the_lowest_threshold_agrees_with_adaptive_quadrature(groups):
    expected = specificity_by_quadrature(140, 2, 0.944, groups)
    found = Binormal(0.944).expected_specificity(140, 2, groups)
    assert found == pytest.approx(expected, abs=1e-9)


@given(auroc=AUROCS, sensitivity=st.floats(0.01, 0.99))
def test_binormal_curve_has_the_area_it_was_given(auroc, sensitivity):
    population = Binormal(auroc)
    assert norm.cdf(population.separation / math.sqrt(2)) == pytest.approx(auroc, rel=1e-12)
    expected = norm.cdf(norm.isf(sensitivity, loc=population.separation))
    assert population.specificity_at(sensitivity) == pytest.approx(expected, rel=1e-9)


def test_useless_scores_keep_of_the_negatives_the_share_of_positives_missed():
    """AUROC 0.5: specificity is 1 - sensitivity, whose mean under Beta(n - k, k + 1) is (k + 1) / (n + 1)."""
    assert Binormal(0.5).expected_specificity(93, 1) == pytest.approx(2 / 94, rel=1e-9)


@given(
    positive=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    negative=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    positives=st.integers(1, 4),
    data=st.data(),
)
@settings(deadline=None)
def test_own_scores_give_the_mean_over_every_possible_draw(positive, negative, positives, data):
    """All m^n draws with replacement, ties and all, enumerated."""
    misses = data.draw(st.integers(0, positives - 1))
    pool, rest = np.array(positive, dtype=float), np.array(negative, dtype=float)
    draws = np.stack([axis.ravel() for axis in np.meshgrid(*[pool] * positives)])
    thresholds = np.sort(draws, axis=0)[misses]
    expected = (rest[:, None] < thresholds).mean()
    assert EmpiricalPopulation(pool, rest).expected_specificity(positives, misses) == pytest.approx(
        expected, abs=1e-9
    )


@given(
    positive=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    negative=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    positives=st.integers(1, 4),
    target=st.sampled_from((0.2, 0.3, 0.5)),
)
@settings(deadline=None)
def test_own_scores_give_the_quantiles_over_every_possible_draw(positive, negative, positives, target):
    pool, rest = np.array(positive, dtype=float), np.array(negative, dtype=float)
    found = forecast(positives, target, 0.6, EmpiricalPopulation(pool, rest))
    if found is None:
        assert target**positives > 1 - 0.6
        return
    draws = np.stack([axis.ravel() for axis in np.meshgrid(*[pool] * positives)])
    specificity = np.sort((rest[:, None] < np.sort(draws, axis=0)[found.misses]).mean(axis=0))
    for quantile, level in ((found.specificity.low, 0.05), (found.specificity.high, 0.95)):
        assert quantile == pytest.approx(specificity[math.ceil(level * specificity.size) - 1], abs=1e-9)


def test_own_scores_give_what_resampled_certificates_give():
    rng = np.random.default_rng(2)
    positive, negative = np.round(rng.normal(2, 1, 150), 1), np.round(rng.normal(0, 1, 400), 1)
    draws = 2000
    drawn = rng.choice(positive, (draws, 93))
    specificity = [np.mean(negative < certified_threshold(row, 0.95, 0.95)[0]) for row in drawn]
    found = forecast(93, 0.95, 0.95, EmpiricalPopulation(positive, negative)).specificity
    assert abs(np.mean(specificity) - found.mean) < 4 * np.std(specificity) / math.sqrt(draws)
    assert np.mean(np.array(specificity) < found.low) <= 0.07
    assert np.mean(np.array(specificity) > found.high) <= 0.07


@given(
    positive=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    negative=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    misses=st.integers(0, 20),
)
def test_specificity_at_a_sensitivity_is_that_of_the_highest_threshold_that_reaches_it(
    positive, negative, misses
):
    pool, rest = np.array(positive, dtype=float), np.array(negative, dtype=float)
    misses = min(misses, pool.size - 1)
    wanted = 1 - misses / pool.size
    reaching = [t for t in pool if np.mean(pool >= t) >= wanted - 1e-9]
    expected = np.mean(rest < max(reaching))
    assert EmpiricalPopulation(pool, rest).specificity_at(wanted) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_own_scores_counts_ties_half():
    assert EmpiricalPopulation(np.array([1.0, 2.0]), np.array([0.0, 1.0])).auroc == pytest.approx(3.5 / 4)


def test_abstentions_among_own_scores_count_as_referred():
    found = EmpiricalPopulation(np.array([1.0, np.inf]), np.array([0.0, np.inf]))
    assert found.specificity_at(0.99) == 0.5
    assert found.expected_specificity(5, 0) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_own_score_that_is_no_number_is_refused(value):
    with pytest.raises(CalibrationError, match="among the negative cases is NaN or -inf"):
        EmpiricalPopulation(np.array([0.5]), np.array([0.1, value]))


def test_own_scores_of_one_class_alone_are_refused():
    with pytest.raises(CalibrationError, match="at least one positive case"):
        EmpiricalPopulation(np.array([]), np.array([0.1]))


@given(case=counts_and_misses(), auroc=st.floats(0.55, 0.99))
@settings(deadline=None)
def test_specificity_falls_with_more_positives_fewer_misses_and_more_groups(case, auroc):
    positives, misses = case
    population, rounding = Binormal(auroc), 1e-9
    here = population.expected_specificity(positives, misses)
    assert population.expected_specificity(positives + 1, misses) <= here + rounding
    assert population.expected_specificity(positives + 1, misses + 1) >= here - rounding
    assert population.expected_specificity(positives, misses, 2) <= here + rounding
    assert Binormal(auroc + 0.005).expected_specificity(positives, misses) >= here - rounding


def test_collecting_on_without_reaching_the_next_step_costs_specificity():
    for step in sample_size_steps(0.95, 0.95, 10):
        first, last = (
            forecast(n, 0.95, 0.95, Binormal(0.944)).specificity.mean for n in (step.positives, step.last)
        )
        assert last < first


@given(positives=COUNTS, truth=st.floats(0.5, 0.999), target=st.floats(0.8, 0.98))
def test_power_agrees_with_scipy(positives, truth, target):
    misses = allowed_misses(positives, target, 0.95)
    expected = 0.0 if misses is None else binom.cdf(misses, positives, 1 - truth)
    assert power(positives, truth, target, 0.95) == pytest.approx(expected, abs=1e-11)


@given(positives=COUNTS, truth=st.floats(0.5, 0.95))
def test_threshold_that_is_no_better_than_the_target_is_seldom_certified(positives, truth):
    assert power(positives, truth, 0.95, 0.95) <= 0.05 + 1e-9


@given(positives=st.integers(59, 1500), truth=st.floats(0.9, 0.99))
def test_power_rises_with_the_truth(positives, truth):
    assert power(positives, truth + 0.005, 0.95, 0.95) >= power(positives, truth, 0.95, 0.95)


@pytest.mark.parametrize(
    ("wanted", "truth", "target", "confidence"),
    [(0.8, 0.99, 0.95, 0.95), (0.9, 0.98, 0.95, 0.95), (0.8, 0.97, 0.95, 0.95), (0.9, 0.95, 0.8, 0.99),
     (0.2, 0.99, 0.95, 0.95), (0.5, 0.8, 0.7, 0.6)],
)  # fmt: skip
def test_power_is_reached_for_good_and_not_one_case_earlier(wanted, truth, target, confidence):
    enough = positives_for_power(wanted, truth, target, confidence)
    counts = np.arange(1, 2 * enough + 500)
    misses = np.array(
        [-1 if (k := allowed_misses(int(n), target, confidence)) is None else k for n in counts]
    )
    powers = binom.cdf(misses, counts, 1 - truth)
    assert (powers[counts >= enough] >= wanted).all()
    assert enough == 1 or powers[enough - 2] < wanted


def test_first_number_that_reaches_a_power_need_not_hold_it():
    """The saw: 93 cases certify a truth of 0.99 more often than 123 do."""
    assert power(93, 0.99, 0.95, 0.95) > 0.7 > power(123, 0.99, 0.95, 0.95)
    assert positives_for_power(0.7, 0.99, 0.95, 0.95) > 93


@pytest.mark.parametrize("truth", [0.9, 0.95, 0.9500001, 0.951])
def test_no_number_is_promised_where_the_truth_is_not_well_above_the_target(truth):
    assert positives_for_power(0.8, truth, 0.95, 0.95) is None


def test_too_few_positives_have_no_forecast_and_no_power():
    assert forecast(58, 0.95, 0.95, Binormal(0.9)) is None
    assert power(58, 0.999, 0.95, 0.95) == 0.0


def test_thresholds_of_their_own_need_the_divided_error_and_more_cases():
    found = joint_forecast(79, 3, 0.95, 0.95, Binormal(0.944))
    needed = math.ceil(math.log(0.05 / 3) / math.log(0.95))
    assert needed == 80
    assert (found.common_misses, found.own_misses, found.own_specificity) == (0, None, None)
    assert joint_forecast(80, 3, 0.95, 0.95, Binormal(0.944)).own_misses == 0


def test_common_threshold_costs_what_its_simulation_costs():
    rng, population, draws = np.random.default_rng(3), Binormal(0.944), 1000
    scores = rng.normal(population.separation, 1, (draws, 3, 124))
    specificity = norm.cdf([min(certified_threshold(g, 0.95, 0.95)[0] for g in groups) for groups in scores])
    found = joint_forecast(124, 3, 0.95, 0.95, population)
    assert abs(specificity.mean() - found.common_specificity) < 4 * specificity.std() / math.sqrt(draws)


def test_one_group_is_the_plain_forecast():
    found = joint_forecast(140, 1, 0.95, 0.95, Binormal(0.944))
    plain = forecast(140, 0.95, 0.95, Binormal(0.944))
    assert found.common_specificity == found.own_specificity == plain.specificity.mean
    assert plain.cost == pytest.approx(plain.oracle_specificity - plain.specificity.mean)
    assert bonferroni_confidence(0.95, 1) == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_size_steps(0.95, 0.95, -1), "0 to 1000 allowed misses, found -1"),
        (lambda: sample_size_steps(1.0, 0.95, 1), "between 0 and 1"),
        (lambda: forecast(0, 0.95, 0.95, Binormal(0.9)), "1 to 100000 positive cases, found 0"),
        (lambda: forecast(100_001, 0.95, 0.95, Binormal(0.9)), "found 100001"),
        (lambda: Binormal(1.0), "AUROC of at least 0.5 and below 1, found 1.0"),
        (lambda: Binormal(math.nan), "found nan"),
        (lambda: power(100, 1.0, 0.95, 0.95), "true sensitivity between 0 and 1, found 1.0"),
        (lambda: power(100, math.nan, 0.95, 0.95), "found nan"),
        (lambda: positives_for_power(1.0, 0.98, 0.95, 0.95), "a power between 0 and 1, found 1.0"),
        (lambda: joint_forecast(100, 0, 0.95, 0.95, Binormal(0.9)), "at least 1 group, found 0"),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_sentence(call, message):
    with pytest.raises(CalibrationError, match=message):
        call()

"""Paired differences are those of brute force, and McNemar's test is the binomial one of scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest, multinomial
from sklearn.metrics import roc_auc_score

from lesion_triage.calibrate import metrics
from lesion_triage.calibrate.bootstrap import draw_counts
from lesion_triage.calibrate.paired_comparison import PolicyOutput, compare, mcnemar_p_value, rate_difference
from lesion_triage.errors import CalibrationError

NAMES = ("auroc", "sensitivity", "specificity", "referral_rate")


def pair(seed, size, threshold=0.4):
    random = np.random.default_rng(seed)
    positive = random.random(size) < 0.3
    shared = random.normal(size=size) + positive
    said = []
    for strength in (0.5, 1.5):
        logit = strength * shared + random.normal(size=size)
        scores = 1 / (1 + np.exp(-logit + 0.5))
        said.append(PolicyOutput(scores, scores >= threshold))
    return said[0], said[1], positive


def rates(referred, positive):
    return np.array([referred[positive].mean(), (~referred[~positive]).mean(), referred.mean()])


@pytest.mark.parametrize("with_units", [False, True])
def test_differences_are_those_of_brute_force(with_units):
    """Where units have several cases their draws are in the interval; else it is that of the counts."""
    first, second, positive = pair(0, 120)
    units = np.arange(120) // 2 if with_units else None
    found = compare(first, second, positive, 300, 5, units)
    assert tuple(one.name for one in found.differences) == NAMES
    drawn = [np.repeat(np.arange(120), row.astype(int)) for c in draw_counts(120, 300, 5, units) for row in c]
    over = (positive, ~positive, np.ones_like(positive))
    for number, (one, among) in enumerate(zip(found.differences[1:], over, strict=True)):
        ours, theirs = rates(first.referred, positive)[number], rates(second.referred, positive)[number]
        assert (one.first, one.second) == pytest.approx((ours, theirs))
        assert one.difference.value == pytest.approx(theirs - ours)
        up, down = second.referred & ~first.referred, first.referred & ~second.referred
        gained, lost = (down, up) if one.name == "specificity" else (up, down)
        of = (np.arange(120) if units is None else units)[among]
        counted = rate_difference(gained[among], lost[among], of)
        expected = (counted.low, counted.high)
        if with_units:
            values = [
                rates(second.referred[i], positive[i])[number] - rates(first.referred[i], positive[i])[number]
                for i in drawn
            ]
            low, high = np.quantile(values, [0.025, 0.975])
            expected = (min(low, counted.low), max(high, counted.high))
        assert (one.difference.low, one.difference.high) == pytest.approx(expected, abs=1e-12)
    auroc = found.differences[0]
    assert auroc.first == pytest.approx(roc_auc_score(positive, first.scores))
    assert auroc.difference.value == pytest.approx(auroc.second - auroc.first)


def moved(gained, lost, cases):
    """So many cases of each kind, each of a unit of its own."""
    case = np.arange(cases)
    found = rate_difference(case < gained, (case >= gained) & (case < gained + lost), case)
    return found.low, found.high


def test_a_case_that_changed_side_widens_what_none_had():
    """1 of 112 lost: the draws' interval ended at 0, and was narrower than that of none."""
    none, one = moved(0, 0, 112), moved(0, 1, 112)
    assert one[0] < none[0] < 0 < one[1]
    assert one[1] - one[0] > none[1] - none[0]


@pytest.mark.parametrize("cases", [20, 112])
def test_an_interval_holds_zero_unless_the_exact_test_beside_it_rejects(cases):
    """4 lost and none gained: the draws' interval was below 0 where McNemar's p is 0.125."""
    for lost in range(12):
        for gained in range(min(8, cases - lost)):
            low, high = moved(gained, lost, cases)
            rejects = gained + lost > 0 and binomtest(gained, gained + lost).pvalue < 0.05
            assert (low <= 0 <= high) is not rejects


@pytest.mark.parametrize("cases", [12, 40])
def test_a_paired_difference_is_covered_as_often_as_it_says_whatever_the_shares(cases):
    """All outcomes of so many cases, weighed by their law: no simulation. Draws alone covered 0.86 of 40."""
    outcomes = [(up, down) for up in range(cases + 1) for down in range(cases + 1 - up)]
    up, down = np.array(outcomes).T
    low, high = np.array([moved(*one, cases) for one in outcomes]).T
    shares = (0.0, 0.001, 0.01, 0.03, 0.08, 0.15, 0.3, 0.45, 0.6)
    for gained, lost in product(shares, shares):
        if gained + lost < 1:
            chance = multinomial.pmf(
                np.stack([up, down, cases - up - down], axis=1), cases, [gained, lost, 1 - gained - lost]
            )
            above = chance[low > gained - lost + 1e-12].sum()
            below = chance[high < gained - lost - 1e-12].sum()
            assert above + below <= 0.05
            assert max(above, below) <= 0.027


@pytest.mark.parametrize("alike", [0.2, 1.0])
def test_patients_with_several_cases_are_covered_too(alike):
    """15 patients of 1 to 5 cases, each fares like its first with chance ``alike``."""
    random, held, shares = np.random.default_rng(int(10 * alike)), 0, [0.1, 0.04, 0.86]
    for _ in range(300):
        units = np.repeat(np.arange(15), random.integers(1, 6, size=15))
        own, first = random.choice(3, units.size, p=shares), random.choice(3, 15, p=shares)
        fares = np.where(random.random(units.size) < alike, first[units], own)
        found = rate_difference(fares == 0, fares == 1, units)
        held += found.low <= 0.06 <= found.high
    assert held >= 0.95 * 300


def test_policy_does_not_differ_from_itself():
    first, _, positive = pair(1, 200)
    found = compare(first, first, positive, 100, 0, same_policy=True)
    for one in found.differences:
        assert (one.difference.value, one.difference.low, one.difference.high) == (0, 0, 0)
    assert (found.positives.first_only, found.positives.second_only, found.positives.p_value) == (0, 0, 1.0)


def test_discordant_cases_are_counted_by_class():
    first, second, positive = pair(2, 400)
    found = compare(first, second, positive, 100, 0)
    lost = positive & first.referred & ~second.referred
    assert found.positives.first_only == lost.sum()
    assert found.positives.second_only == (positive & ~first.referred & second.referred).sum()
    assert found.positives.cases + found.negatives.cases == 400


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1), (3, 9), (9, 3), (7, 7), (40, 81), (900, 1100)])
def test_mcnemar_is_the_binomial_test(one, other):
    expected = binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar_p_value(one, other) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_very_many_cases_is_the_binomial_law_to_nine_digits():
    assert mcnemar_p_value(497_000, 503_000) == pytest.approx(2 * binom.cdf(497_000, 10**6, 0.5), rel=1e-9)


def test_cases_of_one_patient_get_no_p_value():
    first, second, positive = pair(3, 100)
    assert compare(first, second, positive, 100, 0, np.arange(100) // 2).positives.p_value is None


def test_auroc_is_compared_on_the_cases_that_both_gave_a_score():
    first, second, positive = pair(4, 200)
    scores = second.scores.copy()
    scores[:20] = np.inf
    found = compare(first, PolicyOutput(scores, second.referred), positive, 100, 0)
    assert found.scored_by_both == 180
    assert found.differences[0].first == pytest.approx(roc_auc_score(positive[20:], first.scores[20:]))


def test_other_cases_are_refused():
    first, second, positive = pair(5, 50)
    with pytest.raises(CalibrationError, match="same cases"):
        compare(first, PolicyOutput(second.scores[1:], second.referred[1:]), positive, 100, 0)


@pytest.mark.parametrize("with_units", [False, True])
def test_placement_values_give_the_interval_of_the_draws_themselves(with_units):
    first, second, positive = pair(6, 6000)
    units = np.arange(6000) // 3 if with_units else None
    slow = metrics.auroc_difference(first.scores, second.scores, positive, 1000, 0, units)
    fast = metrics.placement_auroc_difference(first.scores, second.scores, positive, 1000, 1, units)
    assert fast.value == pytest.approx(slow.value, abs=1e-12)
    width = slow.high - slow.low
    assert fast.high - fast.low == pytest.approx(width, rel=0.1)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.1 * width)


@pytest.mark.parametrize("with_units", [False, True])
def test_policies_that_agree_on_every_case_here_may_differ_on_the_next(with_units):
    """Two thresholds of one model, say. None of 30 positives changed side: of those to come 1 in 9 may."""
    positive = np.arange(100) < 30
    referred = np.arange(100) < 60
    scores = np.where(referred, 0.8, 0.2) + np.linspace(0, 0.1, 100)
    units = np.arange(100) // 2 if with_units else None
    found = compare(PolicyOutput(scores, referred), PolicyOutput(scores, referred), positive, 200, 0, units)
    by_name = {one.name: one.difference for one in found.differences}
    for name, cases in (("sensitivity", 30), ("specificity", 70), ("referral_rate", 100)):
        reach = 1 - 0.025 ** (1 / (cases // 2 if with_units else cases))
        one = by_name[name]
        assert (one.value, one.low, one.high) == pytest.approx((0, -reach, reach))

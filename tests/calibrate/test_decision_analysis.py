"""Predictive values and net benefit against tables of four cells counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from lesion_triage.calibrate.bootstrap import draw_counts
from lesion_triage.calibrate.cells import Sample
from lesion_triage.calibrate.decision_analysis import (
    BONFERRONI_PAIR_CONFIDENCE,
    net_benefit,
    predictive_values,
    predictive_values_by_bayes,
)
from lesion_triage.calibrate.metrics import proportion, summarise
from lesion_triage.errors import CalibrationError

shares = st.floats(0.01, 0.99)


def cases(seed=0, size=200, share=0.3):
    rng = np.random.default_rng(seed)
    positive = rng.random(size) < share
    return 1 / (1 + np.exp(-(rng.normal(size=size) + 1.5 * positive - 1))), positive


def benefit(scores, positive, probability):
    (_, false), (_, true) = confusion_matrix(positive, scores >= probability, labels=[False, True])
    return true / positive.size - false / positive.size * probability / (1 - probability)


@given(sensitivity=shares, specificity=shares, prevalence=shares)
def test_predictive_values_are_shares_of_an_imagined_population(sensitivity, specificity, prevalence):
    people = 1e6
    true, false = people * prevalence * sensitivity, people * (1 - prevalence) * (1 - specificity)
    spared, missed = people * (1 - prevalence) - false, people * prevalence - true
    ppv, npv = predictive_values_by_bayes(sensitivity, specificity, prevalence)
    assert float(ppv) == pytest.approx(true / (true + false))
    assert float(npv) == pytest.approx(spared / (spared + missed))


def test_predictive_values_of_a_rule_that_refers_nobody_or_everybody_lack_one():
    ppv, npv = predictive_values_by_bayes(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.1)
    assert np.isnan(ppv[0])
    assert npv[0] == pytest.approx(0.9)
    assert ppv[1] == pytest.approx(0.1)
    assert np.isnan(npv[1])


def of_counts(found, positives, spared, negatives):
    return proportion(found, positives, BONFERRONI_PAIR_CONFIDENCE), proportion(
        spared, negatives, BONFERRONI_PAIR_CONFIDENCE
    )


def of_cases(scores, positive, threshold):
    right = np.where(positive, scores >= threshold, scores < threshold)
    return of_counts(right[positive].sum(), positive.sum(), right[~positive].sum(), (~positive).sum())


@pytest.mark.parametrize("size", [300, 6000])
def test_at_the_prevalence_of_the_sample_they_are_those_of_the_sample(size):
    """Value only: a draw has a prevalence of its own, which ``summarise`` lets vary and this does not."""
    scores, positive = cases(1, size)
    measured = summarise(Sample.of(scores, positive, 0.35), 200, 0)
    (found,) = predictive_values(*of_cases(scores, positive, 0.35), (positive.mean(),))
    assert found.ppv.value == pytest.approx(measured["ppv"].value)
    assert found.npv.value == pytest.approx(measured["npv"].value)
    assert found.ppv.low < found.ppv.value < found.ppv.high


def test_rarer_positives_make_a_referral_say_less_and_its_absence_more():
    scores, positive = cases(3)
    found = predictive_values(*of_cases(scores, positive, 0.3), (0.001, 0.01, 0.1, 0.5))
    ppvs, npvs = [values.ppv.value for values in found], [values.npv.value for values in found]
    assert ppvs == sorted(ppvs)
    assert npvs == sorted(npvs, reverse=True)


@given(seed=st.integers(0, 1000), probability=st.floats(0.02, 0.95))
@settings(max_examples=30, deadline=None)
def test_net_benefit_is_that_of_the_four_cells(seed, probability):
    scores, positive = cases(seed, 150)
    (found,) = net_benefit(Sample.of(scores, positive, 0.9), (probability,), 100, 0)
    assert found.model.value == pytest.approx(benefit(scores, positive, probability))
    assert found.refer_all.value == pytest.approx(benefit(np.ones(150), positive, probability))
    assert found.refer_none == 0


@pytest.mark.parametrize("size", [150, 6000])
def test_interval_of_net_benefit_is_that_of_brute_force(size):
    """With 6,000 cases from cells, whose borders include each probability."""
    scores, positive = cases(7, size)
    probabilities = (0.1, 0.234, 0.6)
    found = net_benefit(Sample.of(scores, positive), probabilities, 1500, 4)
    for row, probability in zip(found, probabilities, strict=True):
        drawn = [
            np.repeat(np.arange(size), counts.astype(int))
            for block in draw_counts(size, 400, 5)
            for counts in block
        ]
        values = np.array([benefit(scores[i], positive[i], probability) for i in drawn])
        assert row.model.value == pytest.approx(benefit(scores, positive, probability))
        spread = (row.model.high - row.model.low) / (2 * 1.96)
        assert spread == pytest.approx(values.std(), rel=0.2)
        assert (row.model.low + row.model.high) / 2 == pytest.approx(values.mean(), abs=0.3 * values.std())


def test_referring_everybody_is_worth_nothing_where_the_probability_is_the_prevalence():
    scores, positive = cases(0)
    (found,) = net_benefit(Sample.of(scores, positive), (positive.mean(),), 100, 0)
    assert found.refer_all.value == pytest.approx(0, abs=1e-12)


def test_abstentions_are_referred_at_every_probability():
    scores, positive = np.array([0.1, 0.2, np.inf, np.inf] * 10), np.array([False, True, True, False] * 10)
    (found,) = net_benefit(Sample.of(scores, positive), (0.5,), 100, 0)
    assert found.model.value == pytest.approx(10 / 40 - 10 / 40)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
def test_shares_outside_the_open_unit_interval_are_refused(value):
    sample = Sample.of(*cases(0))
    with pytest.raises(CalibrationError, match="expected each prevalence between 0 and 1"):
        predictive_values(*of_counts(9, 10, 5, 10), (0.1, value))
    with pytest.raises(CalibrationError, match="expected each threshold probability between 0 and 1"):
        net_benefit(sample, (0.1, value), 100, 0)


def test_exact_band_holds_the_predictive_values_of_every_pair_in_the_two_intervals():
    """Its ends are reached at the corners, and each interval is the Clopper-Pearson one at 97.5 %."""
    prevalences = (0.01, 0.2, 0.5)
    rows = predictive_values(*of_counts(93, 100, 150, 300), prevalences)
    ends = [binomtest(k, n).proportion_ci(0.975, "exact") for k, n in ((93, 100), (150, 300))]
    grid = [np.linspace(end.low, end.high, 40) for end in ends]
    for row, prevalence in zip(rows, prevalences, strict=True):
        ppv, npv = predictive_values_by_bayes(grid[0][:, None], grid[1][None, :], prevalence)
        assert (row.ppv.low, row.ppv.high) == pytest.approx((ppv.min(), ppv.max()))
        assert (row.npv.low, row.npv.high) == pytest.approx((npv.min(), npv.max()))
        point = predictive_values_by_bayes(0.93, 0.5, prevalence)
        assert (row.ppv.value, row.npv.value) == pytest.approx(tuple(map(float, point)))


def test_exact_band_covers_the_truth_at_all_prevalences_at_once():
    random = np.random.default_rng(0)
    sensitivity, specificity, held = 0.9, 0.6, 0
    prevalences = (0.01, 0.1, 0.5)
    truth = predictive_values_by_bayes(sensitivity, specificity, np.array(prevalences))
    for found, spared in zip(
        random.binomial(60, sensitivity, 400), random.binomial(90, specificity, 400), strict=True
    ):
        rows = predictive_values(*of_counts(int(found), 60, int(spared), 90), prevalences)
        held += all(
            row.ppv.low <= ppv <= row.ppv.high and row.npv.low <= npv <= row.npv.high
            for row, ppv, npv in zip(rows, *truth, strict=True)
        )
    assert held >= 0.95 * 400

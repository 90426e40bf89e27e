"""Metrics against scikit-learn, SciPy and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, norm
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from lesion_triage.calibrate import metrics
from lesion_triage.calibrate.bootstrap import draw_counts
from lesion_triage.calibrate.cells import BINS, Cells, Sample
from lesion_triage.errors import CalibrationError
from triage_server.commands.shadow import exact_interval


def cases(seed=0, size=200, levels=None, share=0.3):
    rng = np.random.default_rng(seed)
    positive = rng.random(size) < share
    logits = rng.normal(size=size) + 1.5 * positive - 1
    scores = 1 / (1 + np.exp(-logits))
    return (np.rint(scores * levels) / levels if levels else scores), positive


def once(metric, sample):
    cells = Cells.exact(sample)
    return metric(cells, cells.sample_counts())[0]


REFERENCES = {
    metrics.auroc: lambda scores, positive: roc_auc_score(positive, scores),
    metrics.auprc: lambda scores, positive: average_precision_score(positive, scores),
    metrics.brier: lambda scores, positive: brier_score_loss(positive, scores),
    metrics.log_loss: lambda scores, positive: sklearn_log_loss(positive, np.clip(scores, 1e-12, 1 - 1e-12)),
}


@given(
    metric=st.sampled_from(list(REFERENCES)),
    seed=st.integers(0, 10_000),
    size=st.integers(3, 120),
    levels=st.sampled_from([None, 1, 2, 5, 30]),
)
@settings(max_examples=150, deadline=None)
def test_metric_is_that_of_scikit_learn(metric, seed, size, levels):
    scores, positive = cases(seed, size, levels)
    if positive.all() or not positive.any():
        return
    expected = REFERENCES[metric](scores, positive)
    assert once(metric, Sample.of(scores, positive)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([None, 3, 20]))
@settings(max_examples=30, deadline=None)
def test_weights_are_repetitions(seed, levels):
    scores, positive = cases(seed, 60, levels)
    counts = next(draw_counts(60, 1, seed))
    cells = Cells.exact(Sample.of(scores, positive, 0.4))
    repeated = np.repeat(np.arange(60), counts[0].astype(int))
    if positive[repeated].all() or not positive[repeated].any():
        return
    for metric, reference in REFERENCES.items():
        found = metric(cells, cells.tally(counts))[0]
        assert found == pytest.approx(reference(scores[repeated], positive[repeated]), rel=1e-9)


def test_scores_drawn_from_themselves_are_calibrated():
    rng = np.random.default_rng(1)
    scores = rng.random(20_000)
    estimates = metrics.summarise(Sample.of(scores, rng.random(20_000) < scores), 100, 0)
    assert estimates["calibration_slope"].value == pytest.approx(1, abs=0.05)
    assert estimates["calibration_intercept"].value == pytest.approx(0, abs=0.05)
    assert estimates["calibration_error"].value < 0.02


def test_calibration_error_weighs_bins_by_their_cases():
    scores = np.repeat([0.1, 0.5, 0.9], [50, 30, 20])
    positive = np.concatenate([np.arange(50) < 10, np.arange(30) < 15, np.arange(20) < 10])
    expected = 0.5 * 0.1 + 0.3 * 0.0 + 0.2 * 0.4
    assert once(metrics.calibration_error, Sample.of(scores, positive)) == pytest.approx(expected)


def test_abstention_counts_as_referred_and_has_no_rank():
    scores = np.array([0.1, 0.6, math.inf, math.inf, 0.9])
    positive = np.array([False, False, True, False, True])
    sample = Sample.of(scores, positive, 0.5)
    assert once(metrics.sensitivity, sample) == 1.0
    assert once(metrics.specificity, sample) == pytest.approx(1 / 3)
    assert once(metrics.referral_rate, sample) == pytest.approx(4 / 5)
    assert once(metrics.ppv, sample) == pytest.approx(2 / 4)
    assert once(metrics.npv, sample) == 1.0
    assert once(metrics.auroc, sample) == roc_auc_score([0, 0, 1], [0.1, 0.6, 0.9])


def test_score_at_the_threshold_refers():
    sample = Sample.of(np.array([0.4, 0.5]), np.array([True, True]), 0.5)
    assert once(metrics.sensitivity, sample) == 0.5


def test_metric_without_a_class_is_none_instead_of_a_number():
    estimates = metrics.summarise(Sample.of(np.array([0.2, 0.3]), np.array([False, False]), 0.5), 100, 0)
    assert estimates["auroc"] is None
    assert estimates["sensitivity"] is None
    assert estimates["calibration_slope"] is None
    assert estimates["specificity"].value == 1.0
    assert estimates["ppv"] is None
    assert estimates["npv"].value == 1.0


@given(
    seed=st.integers(0, 1000), threshold=st.sampled_from([0.1, 0.3, 0.7]), levels=st.sampled_from([None, 10])
)
@settings(max_examples=30, deadline=None)
def test_predictive_values_are_precisions_of_scikit_learn(seed, threshold, levels):
    scores, positive = cases(seed, 150, levels)
    referred = scores >= threshold
    if not referred.any() or referred.all():
        return
    sample = Sample.of(scores, positive, threshold)
    assert once(metrics.ppv, sample) == pytest.approx(precision_score(positive, referred))
    assert once(metrics.npv, sample) == pytest.approx(precision_score(~positive, ~referred))


def test_large_sample_has_the_values_of_scikit_learn_and_not_those_of_cells():
    """Above the limit intervals come from cells; the values do not."""
    scores, positive = cases(3, 20_000)
    estimates = metrics.summarise(Sample.of(scores, positive, 0.3), 100, 0)
    for metric, reference in REFERENCES.items():
        assert estimates[metric.__name__].value == pytest.approx(reference(scores, positive), rel=1e-12)
    assert estimates["sensitivity"].value == recall_score(positive, scores >= 0.3)
    assert estimates["specificity"].value == recall_score(~positive, scores < 0.3)
    assert estimates["ppv"].value == precision_score(positive, scores >= 0.3)
    assert estimates["npv"].value == precision_score(~positive, scores < 0.3)
    assert estimates["referral_rate"].value == np.mean(scores >= 0.3)
    ranked = np.argsort(scores)
    gaps = [abs((positive[part] - scores[part]).sum()) for part in np.array_split(ranked, BINS)]
    assert estimates["calibration_error"].value == pytest.approx(sum(gaps) / 20_000, rel=1e-12)


def test_metric_that_most_draws_lack_is_none():
    """One positive in ten cases is missing from a third of the draws."""
    estimates = metrics.summarise(Sample.of(np.linspace(0, 1, 10), np.arange(10) == 9, 0.5), 500, 0)
    assert estimates["auroc"] is None


def test_sample_without_any_score_has_no_ranking_metric():
    estimates = metrics.summarise(Sample.of(np.full(50, math.inf), np.arange(50) < 20, 0.5), 100, 0)
    assert "auroc" not in estimates
    assert estimates["sensitivity"].value == 1.0


@pytest.mark.parametrize("value", [math.nan, -math.inf, -0.1, 1.1])
def test_score_outside_the_unit_interval_is_refused(value):
    with pytest.raises(CalibrationError, match="NaN or outside"):
        Sample.of(np.array([0.5, value]), np.array([True, False]))


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (7, 7), (133, 140), (1, 2), (500, 1000)])
def test_exact_interval_is_that_of_scipy(successes, trials):
    found = metrics.proportion(successes, trials)
    reference = binomtest(successes, trials).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 2, 3, 7, 59, 140, 1_001, 12_345, 200_000, 5_000_000])
def test_exact_intervals_of_report_and_server_are_scipy_s_quantiles_of_beta(trials, confidence):
    """The server has its own, because it imports nothing of ``calibrate``."""
    half = (1 - confidence) / 2
    shares = (0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1)
    for successes in {round(share * trials) for share in shares} | {1, trials - 1}:
        low = beta.ppf(half, successes, trials - successes + 1) if successes else 0.0
        high = beta.isf(half, successes + 1, trials - successes) if successes < trials else 1.0
        found = metrics.proportion(successes, trials, confidence)
        for interval in ((found.low, found.high), exact_interval(successes, trials, confidence)):
            assert interval == pytest.approx((low, high), rel=1e-8, abs=0)
            # Near 1, where the share that failed is what counts.
            assert (1 - interval[0], 1 - interval[1]) == pytest.approx(
                (1 - low, 1 - high), rel=1e-8, abs=1e-15
            )


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_plain_auroc_takes_any_finite_number(seed):
    scores, positive = cases(seed, 50)
    if positive.any() and not positive.all():
        expected = roc_auc_score(positive, scores)
        assert metrics.auroc_from_scores(scores * 1e6 - 5, positive) == pytest.approx(expected)


def separated(positives, negatives):
    positive = np.arange(positives + negatives) < positives
    return np.where(positive, 0.6, 0.2) + np.linspace(0, 0.1, positive.size), positive


@pytest.mark.parametrize("sign", [1, -1])
def test_classes_that_do_not_overlap_are_as_good_as_the_pairs_of_the_smaller_class(sign):
    """All 12 disjoint pairs of a positive and a negative case agree: Clopper and Pearson, 12 of 12."""
    scores, positive = separated(12, 30)
    found = metrics.auroc_with_interval(Sample.of(0.5 + sign * (scores - 0.5), positive), 200, 0)
    bound = binomtest(12, 12).proportion_ci().low
    expected = (1, bound, 1) if sign > 0 else (0, 0, 1 - bound)
    assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_scores_that_are_all_tied_show_no_more_than_that_half_of_the_pairs_may_differ():
    found = metrics.auroc_with_interval(Sample.of(np.full(40, 0.3), np.arange(40) < 15), 200, 0)
    untied = 1 - 0.025 ** (1 / 15)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - untied / 2, 0.5 + untied / 2))


def test_a_patient_is_in_one_of_the_independent_pairs_at_most():
    scores, positive = separated(20, 20)
    patients = np.tile(np.arange(20), 2)  # each has a positive and a negative case
    found = metrics.auroc_with_interval(Sample.of(scores, positive), 200, 0, patients)
    assert found.low == pytest.approx(0.025 ** (1 / 10))


@pytest.mark.parametrize("truth", [0.72, 0.8])
def test_the_bound_of_separated_classes_is_above_the_truth_as_rarely_as_it_says(truth):
    """A negative case in ``1 - truth`` scores above all positive ones: the worst law for the bound.

    The bound of twelve pairs is 0.735, that of twice as many would be 0.857: above 0.8 in 0.069 of all draws.
    """
    random, draws, above = np.random.default_rng(0), 1000, 0
    for _ in range(draws):
        positive = np.arange(24) < 12
        scores = np.where(positive, 0.5, np.where(random.random(24) < truth, 0.1, 0.9))
        if (scores[~positive] < 0.5).all():  # else there is a width, and the draws speak
            above += metrics.auroc_with_interval(Sample.of(scores, positive), 50, 0).low > truth
    assert above <= 0.025 * draws + 3 * (0.025 * 0.975 * draws) ** 0.5


def test_an_interval_with_a_width_is_that_of_the_draws():
    sample = Sample.of(*cases(3, 80))
    assert metrics.auroc_with_interval(sample, 200, 5) == metrics.summarise(sample, 200, 5)["auroc"]
    assert metrics.auroc_with_interval(sample, 200, 5).draws == 200


def test_summary_has_no_interval_without_a_width():
    estimates = metrics.summarise(Sample.of(*separated(15, 25), 0.5), 200, 0)
    assert estimates["auroc"].low == pytest.approx(0.025 ** (1 / 15))
    assert estimates["auprc"] is None


def test_rankings_that_both_separate_the_classes_may_differ_all_the_same():
    scores, positive = separated(12, 30)
    found = metrics.auroc_difference(scores, np.where(positive, 0.9, scores), positive, 200, 0)
    reach = 1 - 0.025 ** (1 / 12)
    assert (found.value, found.low, found.high) == pytest.approx((0, -reach, reach))
    for same in (scores, scores**2):  # ranked alike
        found = metrics.auroc_difference(scores, same, positive, 200, 0)
        assert (found.low, found.high) == (0, 0)


def test_a_ranking_that_separates_beside_one_that_ties_all_may_be_ahead_by_less_than_it_looks():
    """Each pair is worth a half more here, and any other as much as one more or less."""
    scores, positive = separated(10, 10)
    found = metrics.auroc_difference(scores, np.full(20, 0.3), positive, 200, 0)
    alike = 0.025 ** (1 / 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 1.5 * alike - 1, 1 - alike / 2))


@pytest.mark.parametrize("swapped", [1, 2, 5])
def test_a_ranking_that_differs_in_few_cases_is_not_known_to_be_worse(swapped):
    """Of 30 positive cases few fell below all others: the draws ended at 0, narrower than of none."""
    scores, positive = separated(30, 100)
    fallen = np.where(np.arange(130) < swapped, scores / 100, scores)
    found = metrics.auroc_difference(fallen, scores, positive, 400, 0)
    low, high = metrics.proportion_difference_interval(
        metrics.proportion(0, 30), metrics.proportion(swapped, 30)
    )
    assert found.value == pytest.approx(-swapped / 30)
    assert (found.low, found.high) == pytest.approx((low, max(high, 0.0)))
    none = metrics.auroc_difference(np.where(positive, 0.9, scores), scores, positive, 400, 0)
    assert found.low < none.low


def test_patients_who_all_have_cases_of_both_classes_are_counted_once_each():
    """Of 20 patients three fell, each with two cases: six cases, and too few to say which way."""
    scores, positive = separated(40, 40)
    patients = np.tile(np.arange(20), 4)
    for fallen, few in ((3, True), (12, False)):
        worse = np.where(positive & (patients < fallen), scores / 100, scores)
        found = metrics.auroc_difference(worse, scores, positive, 400, 0, patients)
        assert found.value == pytest.approx(-fallen / 20)
        assert (found.high >= 0) == few


@pytest.mark.parametrize("sign", [1, -1])
def test_a_ranking_with_a_flaw_is_no_better_evidence_than_one_without(sign):
    """One pair of 12 x 30 swapped: the draws said 0.984 to 1.000, and of none swapped 0.735 to 1.000."""
    scores, positive = separated(12, 30)
    scores[0], scores[-1] = scores[-1], scores[0]
    found = metrics.auroc_with_interval(Sample.of(0.5 + sign * (scores - 0.5), positive), 400, 0)
    bound = binomtest(12, 12).proportion_ci().low
    if sign > 0:
        assert found.low == pytest.approx(bound)
        assert found.value < found.high == 1
    else:
        assert found.high == pytest.approx(1 - bound)
        assert found.value > found.low == 0


@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("truth", [0.97, 0.99, 0.999])
@pytest.mark.parametrize(("positives", "negatives"), [(10, 40), (20, 150), (60, 60)])
def test_an_auroc_near_one_is_covered_as_often_as_it_says(positives, negatives, truth, spread):
    """Normal scores, of positive cases ``spread`` times as wide; percentiles of draws cover 0.7 to 0.9."""
    random = np.random.default_rng([positives, negatives, int(1000 * truth), int(spread)])
    positive, held = np.arange(positives + negatives) < positives, 0
    for _ in range(100):
        scores = random.normal(size=positive.size)
        scores[positive] = norm.ppf(truth) * np.hypot(1, spread) + spread * scores[positive]
        ranks = np.unique(scores, return_inverse=True)[1] / positive.size
        found = metrics.auroc_with_interval(Sample.of(ranks, positive), 200, 0)
        held += found.low <= truth <= found.high
    assert held >= 94

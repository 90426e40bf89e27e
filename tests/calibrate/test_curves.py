"""Curves are those of scikit-learn; thinning keeps their ends and their shape."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from lesion_triage.calibrate import curves
from lesion_triage.calibrate.cells import BINS, Sample
from lesion_triage.calibrate.metrics import proportion


def cases(seed, size, levels=None):
    random = np.random.default_rng(seed)
    positive = random.random(size) < 0.3
    scores = 1 / (1 + np.exp(-random.normal(size=size) - positive))
    return (np.round(scores * levels) / levels if levels else scores), positive


@pytest.mark.parametrize("levels", [None, 7])
def test_roc_is_that_of_scikit_learn(levels):
    scores, positive = cases(0, 300, levels)
    found = curves.roc_curve(Sample.of(scores, positive), points=10_000)
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert found.x == pytest.approx(tuple(false))
    assert found.y == pytest.approx(tuple(true))


@pytest.mark.parametrize("levels", [None, 7])
def test_precision_and_recall_are_those_of_scikit_learn(levels):
    scores, positive = cases(1, 300, levels)
    found = curves.precision_recall_curve(Sample.of(scores, positive), points=10_000)
    precision, recall, _ = precision_recall_curve(positive, scores)
    assert found.x == pytest.approx(tuple(recall[:-1][::-1]))
    assert found.y == pytest.approx(tuple(precision[:-1][::-1]))


def test_abstentions_are_referred_at_every_threshold():
    scores = np.array([np.inf, np.inf, 0.9, 0.1])
    sample = Sample.of(scores, np.array([True, False, True, False]))
    assert curves.roc_curve(sample).x[:2] == (0.0, 0.5)
    assert curves.roc_curve(sample).y[:2] == (0.0, 0.5)
    assert (curves.precision_recall_curve(sample).x[0], curves.precision_recall_curve(sample).y[0]) == (
        0.5,
        0.5,
    )


def test_thinned_curve_lies_within_a_step_of_the_whole_one():
    scores, positive = cases(2, 50_000)
    sample = Sample.of(scores, positive)
    for curve in (curves.roc_curve, curves.precision_recall_curve):
        thin, whole = curve(sample), curve(sample, points=10**9)
        assert len(thin.x) <= curves.MAX_CURVE_POINTS < len(whole.x)
        assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (
            whole.x[0], whole.y[0], whole.x[-1], whole.y[-1],
        )  # fmt: skip
    thin, whole = curves.roc_curve(sample), curves.roc_curve(sample, points=10**9)
    assert np.abs(np.interp(whole.x, thin.x, thin.y) - whole.y).max() < 2 * 2 / curves.MAX_CURVE_POINTS


def test_curve_of_one_class_is_empty():
    sample = Sample.of(np.array([0.1, 0.2]), np.array([False, False]))
    assert curves.roc_curve(sample).x == ()
    assert curves.precision_recall_curve(sample).x == ()


def test_every_case_stands_in_the_histogram():
    scores, positive = cases(3, 500)
    scores[:9] = np.inf
    found = curves.score_histogram(Sample.of(scores, positive))
    assert sum(found.positives) + found.positives_without_score == positive.sum()
    assert sum(found.negatives) + found.negatives_without_score == (~positive).sum()
    assert found.positives_without_score + found.negatives_without_score == 9
    assert len(found.edges) == curves.HISTOGRAM_BARS + 1


def test_tied_scores_share_a_bin():
    random = np.random.default_rng(0)
    scores, positive = random.choice([0.1, 0.5, 0.9], 300), random.random(300) < 0.3
    bins = curves.reliability(Sample.of(scores, positive))
    assert [bin_.mean_score for bin_ in bins] == pytest.approx([0.1, 0.5, 0.9])
    assert sum(bin_.cases for bin_ in bins) == 300


@pytest.mark.parametrize("size", [1, 3, 9, 10, 101, 1000])
def test_bins_without_ties_have_equal_mass(size):
    scores, positive = cases(0, size)
    counts = [bin_.cases for bin_ in curves.reliability(Sample.of(scores, positive))]
    assert sum(counts) == size
    assert len(counts) == min(size, BINS)
    assert max(counts) - min(counts) <= 1


def test_without_a_score_there_is_no_bin():
    assert curves.reliability(Sample.of(np.full(5, np.inf), np.arange(5) < 2)) == ()


def test_the_cases_of_one_patient_are_no_more_evidence_in_a_bin_than_one_of_them():
    """Five copies of every case, in an order that tells nothing of whose they are."""
    scores, positive = cases(4, 100, levels=8)
    order = np.random.default_rng(4).permutation(500)
    owners = np.repeat(np.arange(100), 5)[order]
    bins = curves.reliability(Sample.of(scores[owners], positive[owners]), owners)
    assert [bin_.cases for bin_ in bins] == [
        5 * once.cases for once in curves.reliability(Sample.of(scores, positive))
    ]
    for bin_ in bins:
        once = proportion(bin_.observed.successes // 5, bin_.cases // 5)
        assert (bin_.observed.low, bin_.observed.high) == pytest.approx((once.low, once.high))

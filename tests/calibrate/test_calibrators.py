"""Platt's calibrator against scikit-learn, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lesion_triage.bundle.calibration import score_of
from lesion_triage.calibrate.calibrators import fit_platt, logistic_lines
from lesion_triage.errors import CalibrationError


def cases(seed, size=400, slope=1.5, intercept=-2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size) * 2
    return logits, rng.random(size) < 1 / (1 + np.exp(-(slope * logits + intercept)))


def smoothed(positive):
    yes, no = positive.sum(), (~positive).sum()
    return np.where(positive, (yes + 1) / (yes + 2), 1 / (no + 2))


@pytest.mark.parametrize("seed", range(5))
def test_fit_is_the_maximum_likelihood_of_smoothed_targets(seed):
    logits, positive = cases(seed)
    fitted = fit_platt(logits, positive)
    targets = smoothed(positive)
    # scikit-learn takes no fractional target: every case enters once as each class, weighted.
    reference = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(
        np.concatenate([logits, logits])[:, None],
        np.repeat([1, 0], logits.size),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    assert fitted.slope == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert fitted.intercept == pytest.approx(reference.intercept_[0], rel=1e-4)


def test_mean_score_is_the_mean_target():
    logits, positive = cases(1)
    fitted = fit_platt(logits, positive)
    scores = [score_of(fitted, logit) for logit in logits]
    assert np.mean(scores) == pytest.approx(smoothed(positive).mean(), abs=1e-9)


def test_separated_classes_still_have_a_fit():
    fitted = fit_platt(np.linspace(-3, 3, 100), np.arange(100) >= 50)
    assert 0 < fitted.slope < math.inf


@given(
    scale=st.floats(1e-6, 1e6), shift=st.floats(-100, 100), seed=st.integers(0, 50), size=st.integers(20, 200)
)
@settings(max_examples=60, deadline=None)
def test_scores_do_not_depend_on_the_unit_of_the_logits(scale, shift, seed, size):
    logits, positive = cases(seed, size)
    if positive.all() or not positive.any():
        return
    try:
        plain = fit_platt(logits, positive)
    except CalibrationError:
        return
    moved = fit_platt(scale * (logits + shift), positive)
    for logit in (-4.0, 0.0, 4.0):
        assert score_of(moved, scale * (logit + shift)) == pytest.approx(score_of(plain, logit), abs=1e-6)


@given(power=st.integers(-300, 300), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_huge_and_tiny_logits_fit_or_are_refused(power, seed):
    logits, positive = cases(seed, 80)
    fitted = fit_platt(logits * 10.0**power, positive)
    assert 0 < fitted.slope < math.inf


def test_scores_that_rank_backwards_are_refused():
    logits, positive = cases(0)
    with pytest.raises(CalibrationError, match="do not rank positive cases above"):
        fit_platt(-logits, positive)


def test_constant_logits_are_refused():
    with pytest.raises(CalibrationError, match="expected more than 0"):
        fit_platt(np.full(50, 0.7), np.arange(50) < 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logit_that_is_no_number_is_refused(value):
    with pytest.raises(CalibrationError, match="1 of 3 logits are not finite"):
        fit_platt(np.array([0.0, 1.0, value]), np.array([False, True, True]))


@pytest.mark.parametrize("outcome", [True, False])
def test_one_class_only_is_refused(outcome):
    with pytest.raises(CalibrationError, match="both classes"):
        fit_platt(np.arange(5.0), np.full(5, outcome))


def test_a_start_nearby_changes_nothing():
    logits, positive = cases(3)
    weights = np.random.default_rng(0).integers(0, 3, size=(20, logits.size)).astype(float)
    cold = logistic_lines(logits, positive.astype(float), weights)
    warm = logistic_lines(logits, positive.astype(float), weights, (1.4, -1.9))
    assert warm == pytest.approx(cold, rel=1e-6)


def test_fits_without_a_maximum_are_nan_and_leave_the_others_alone():
    x, truth = np.array([-2.0, -1.0, 0.5, 0.0, 1.0, 2.0]), np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    weights = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]], dtype=float)
    lines = logistic_lines(x, truth, weights)
    assert np.isfinite(lines[0]).all()
    assert np.isnan(lines[1:]).all()

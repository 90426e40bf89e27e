"""The calibration line against scikit-learn, draw by draw, and where it does not exist."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lesion_triage.calibrate.bootstrap import draw_counts
from lesion_triage.calibrate.calibration_slope import calibration_slope_and_intercept
from lesion_triage.calibrate.cells import Cells, Sample


def cases(seed, size, slope=1.0, intercept=0.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, size)
    outcome = rng.random(size) < 1 / (1 + np.exp(-(slope * logits + intercept)))
    return 1 / (1 + np.exp(-logits)), outcome


def reference(scores, positive):
    logits = np.log(scores / (1 - scores))[:, None]
    fit = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(logits, positive)
    return fit.coef_[0, 0], fit.intercept_[0]


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -1.0), (3.0, 2.0), (-0.5, 0.0)])
def test_line_is_that_of_an_unpenalised_regression(slope, intercept):
    scores, positive = cases(2, 500, slope, intercept)
    cells = Cells.exact(Sample.of(scores, positive))
    found = calibration_slope_and_intercept(cells, cells.sample_counts())[0]
    assert found == pytest.approx(reference(scores, positive), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("size", [40, 1000])
def test_line_of_a_draw_is_that_of_its_repetitions(size):
    """With 40 cases some draws are far from the sample, and take the careful way."""
    scores, positive = cases(5, size)
    counts = next(draw_counts(size, 20, 7))
    cells = Cells.exact(Sample.of(scores, positive))
    for row, found in zip(counts, calibration_slope_and_intercept(cells, cells.tally(counts)), strict=True):
        drawn = np.repeat(np.arange(size), row.astype(int))
        assert found == pytest.approx(reference(scores[drawn], positive[drawn]), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "positive"),
    [
        ([0.2, 0.3, 0.6, 0.7], [False, False, True, True]),
        ([0.4, 0.4, 0.4, 0.4], [False, True, False, True]),
        ([0.5, 0.5, 0.5, 0.5], [False, True, False, True]),
        ([0.2, 0.3, 0.6, 0.7], [False, False, False, False]),
        ([0.0, 0.0, 1.0, 1.0], [False, False, True, True]),
    ],
    ids=["separated", "constant", "constant at one half", "one class", "perfect"],
)
def test_line_that_does_not_exist_is_nan(scores, positive):
    cells = Cells.exact(Sample.of(np.array(scores), np.array(positive)))
    assert np.isnan(calibration_slope_and_intercept(cells, np.repeat(cells.sample_counts(), 3, axis=0))).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_draw_that_has_one_of_two_scores_has_no_line(seed):
    """Rounding must not pass for a solution of its singular equations."""
    rng = np.random.default_rng(seed)
    scores, positive = np.repeat(rng.random(2), 20), rng.random(40) < 0.5
    cells = Cells.exact(Sample.of(scores, positive))
    counts = np.concatenate([np.ones((1, 20)), np.zeros((1, 20))], axis=1)
    assert np.isnan(calibration_slope_and_intercept(cells, cells.tally(counts))).all()


def test_draw_without_a_line_does_not_take_it_from_the_others():
    scores, positive = cases(1, 60)
    cells = Cells.exact(Sample.of(scores, positive))
    counts = np.ones((2, 60))
    counts[1, positive] = 0
    lines = calibration_slope_and_intercept(cells, cells.tally(counts))
    assert lines[0] == pytest.approx(reference(scores, positive), rel=1e-4)
    assert np.isnan(lines[1]).all()

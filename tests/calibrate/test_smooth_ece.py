"""The smooth calibration error against its definition, computed by quadrature over every case."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from lesion_triage.calibrate.bootstrap import draw_counts
from lesion_triage.calibrate.cells import Cells, Sample
from lesion_triage.calibrate.smooth_ece import smooth_calibration_error

GRID = (np.arange(4000) + 0.5) / 4000


def smoothed(scores, residuals, bandwidth):
    """``smECE`` at one bandwidth: a sum of Gaussians and of their images beyond 0 and 1."""
    curve = np.zeros(GRID.size)
    for score in np.unique(scores):
        images = [2 * turn + sign * score for turn in range(-2, 3) for sign in (-1, 1)]
        kernel = sum(norm.pdf(GRID, image, bandwidth) for image in images if abs(image - 0.5) < 3)
        curve += residuals[scores == score].sum() * kernel
    return np.abs(curve).mean() / len(scores)


def by_definition(scores, positive):
    return brentq(lambda s: smoothed(scores, positive - scores, s) - s, 1e-3, 1.0, xtol=1e-6)


def error_of(scores, positive):
    cells = Cells.exact(Sample.of(np.asarray(scores), np.asarray(positive)))
    return smooth_calibration_error(cells, cells.sample_counts())[0]


@pytest.mark.parametrize(
    ("size", "shape", "tilt", "levels"),
    [
        (30, (2, 5), 1.0, None),
        (60, (1, 1), 1.0, None),
        (60, (0.3, 3), 1.0, None),
        (50, (1, 1), 3.0, 7),
        (60, (0.2, 0.2), 0.3, None),
        (30_000, (2, 2), 1.0, 150),
    ],
)
def test_error_is_that_of_the_definition(size, shape, tilt, levels):
    rng = np.random.default_rng(size)
    scores = rng.beta(*shape, size)
    scores = np.rint(scores * levels) / levels if levels else scores
    positive = rng.random(size) < scores**tilt
    assert error_of(scores, positive) == pytest.approx(by_definition(scores, positive), rel=1e-3)


def test_error_of_residuals_that_alternate_along_the_score_is_that_of_the_definition():
    """A wave smooths away quickly, which is hard on the search for the bandwidth."""
    scores = np.linspace(0.05, 0.95, 60)
    positive = np.sin(2 * np.pi * 4 * scores) > 0
    assert error_of(scores, positive) == pytest.approx(by_definition(scores, positive), rel=1e-3)


@given(seed=st.integers(0, 10_000), size=st.integers(1, 60), levels=st.sampled_from([None, 1, 4]))
@settings(max_examples=60, deadline=None)
def test_error_lies_between_the_mean_residual_and_the_mean_absolute_one(seed, size, levels):
    rng = np.random.default_rng(seed)
    scores = rng.random(size)
    scores = np.rint(scores * levels) / levels if levels else scores
    positive = rng.random(size) < 0.5
    residuals, found = positive - scores, error_of(scores, positive)
    assert abs(residuals.mean()) - 1e-6 <= found <= np.abs(residuals).mean() + 1e-6


def test_calibrated_scores_have_a_small_error_and_a_shift_has_its_size():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.7, 50_000)
    draw = rng.random(50_000)
    assert error_of(scores, draw < scores) < 0.01
    assert error_of(scores, draw < scores + 0.1) == pytest.approx(0.1, abs=0.005)


def test_error_of_perfect_scores_is_nil():
    assert error_of(np.array([0.0, 1.0, 1.0]), np.array([False, True, True])) == 0.0


def test_draw_has_the_error_of_its_repetitions():
    rng = np.random.default_rng(3)
    scores = rng.random(300)
    positive = rng.random(300) < scores**2
    counts = next(draw_counts(300, 10, 0))
    cells = Cells.exact(Sample.of(scores, positive))
    for row, found in zip(counts, smooth_calibration_error(cells, cells.tally(counts)), strict=True):
        drawn = np.repeat(np.arange(300), row.astype(int))
        assert found == pytest.approx(error_of(scores[drawn], positive[drawn]), rel=1e-3)


def test_draw_without_a_score_has_none():
    cells = Cells.exact(Sample.of(np.array([0.5, np.inf]), np.array([True, False])))
    assert np.isnan(smooth_calibration_error(cells, cells.tally(np.array([[0.0, 2.0]])))).all()

"""The interval of a calibration error holds its own value, and the truth as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_triage.calibrate.bootstrap import draw_counts
from lesion_triage.calibrate.cells import Cells, Sample
from lesion_triage.calibrate.curves import reliability
from lesion_triage.calibrate.metrics import summarise
from lesion_triage.calibrate.smooth_ece import smoothed_absolute_mean

ERRORS = ("calibration_error", "smooth_calibration_error")


def drawn(seed, size, power=1.0):
    """Scores, and outcomes whose chance is a power of the score: 1 is calibrated."""
    random = np.random.default_rng([seed, size])
    scores = random.beta(0.7, 1.6, size)
    return scores, random.random(size) < scores**power


@pytest.mark.parametrize("size", [60, 200])
def test_of_calibrated_scores_the_interval_begins_at_nil(size):
    """Percentiles of the draws began above 0 in every sample."""
    samples = 20
    begins = dict.fromkeys(ERRORS, 0)
    for seed in range(samples):
        found = summarise(Sample.of(*drawn(seed, size)), 100, seed)
        for name in ERRORS:
            assert found[name].low <= found[name].value <= found[name].high
            begins[name] += found[name].low == 0.0
    assert min(begins.values()) >= 0.9 * samples


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("size", [60, 200])
def test_the_error_at_these_scores_is_covered_as_often_as_it_says(size, copies):
    """Of scores that are too high, with the error of their expected residuals as the truth."""
    samples, held = 20, dict.fromkeys(ERRORS, 0)
    units = np.repeat(np.arange(size), copies)
    for seed in range(samples):
        scores, positive = (np.repeat(part, copies) for part in drawn(seed, size, 1.6))
        sample = Sample.of(scores, positive)
        found, cells = summarise(sample, 100, seed, units), Cells.exact(sample)
        expected = np.bincount(cells.slot % cells.score.size, scores**1.6 - scores)[None] / scores.size
        starts = np.cumsum([0, *(one.cases // copies for one in reliability(sample))])[:-1]
        truth = (
            np.abs(np.add.reduceat(expected[0], starts)).sum(),
            smoothed_absolute_mean(cells, expected)[0],
        )
        for name, value in zip(ERRORS, truth, strict=True):
            held[name] += found[name].low <= value <= found[name].high
    assert min(held.values()) >= 0.9 * samples


def test_the_binned_interval_is_that_of_brute_force():
    scores, positive = drawn(1, 80)
    scores = np.where(np.arange(80) % 10, np.round(scores, 2), np.inf)
    sample = Sample.of(scores, positive)
    found = summarise(sample, draws=300, seed=11)["calibration_error"]
    scored = np.isfinite(scores)
    ranked = np.argsort(np.where(scored, scores, 2.0), kind="stable")[: scored.sum()]
    bins = np.split(ranked, np.cumsum([one.cases for one in reliability(sample)])[:-1])
    residual = np.where(scored, positive - np.where(scored, scores, 0.0), 0.0)

    def gaps(times):
        return np.array([times[one] @ residual[one] for one in bins]) / times[scored].sum()

    here = gaps(np.ones(80))
    noise = [np.abs(gaps(times) - here).sum() for block in draw_counts(80, 300, 11) for times in block]
    reach = np.quantile(noise, 0.975)
    expected = (np.abs(here).sum(), max(np.abs(here).sum() - reach, 0), np.abs(here).sum() + reach)
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 60), part=st.floats(-2, 2))
@settings(max_examples=60, deadline=None)
def test_the_smooth_error_of_a_sum_is_at_most_the_sum_of_the_errors(seed, size, part):
    """The interval rests on it."""
    random = np.random.default_rng(seed)
    cells = Cells.exact(Sample.of(*drawn(seed, size)))
    one, other = random.normal(size=(2, cells.score.size - 1)) / size
    whole, first, second = smoothed_absolute_mean(cells, np.stack([one + part * other, one, part * other]))
    assert whole <= first + second + 1e-5

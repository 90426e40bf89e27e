"""Intervals against brute force; draws from cells against draws of cases; units against their cases."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from lesion_triage.calibrate import bootstrap as bootstrap_module
from lesion_triage.calibrate import metrics
from lesion_triage.calibrate.bootstrap import bootstrap, draw_counts
from lesion_triage.calibrate.cells import Cells, Sample
from lesion_triage.errors import CalibrationError

SINGLE = (
    metrics.auroc,
    metrics.auprc,
    metrics.brier,
    metrics.log_loss,
    metrics.calibration_error,
    metrics.smooth_calibration_error,
    metrics.sensitivity,
    metrics.specificity,
    metrics.ppv,
    metrics.npv,
    metrics.referral_rate,
)


def cases(seed=0, size=200, levels=None, share=0.3):
    rng = np.random.default_rng(seed)
    positive = rng.random(size) < share
    scores = 1 / (1 + np.exp(-(rng.normal(size=size) + 1.5 * positive - 1)))
    return (np.rint(scores * levels) / levels if levels else scores), positive


def everything(cells, counts):
    columns = [metric(cells, counts) for metric in SINGLE]
    return np.column_stack([*columns, metrics.calibration_slope_and_intercept(cells, counts)])


def width(estimate):
    return estimate.high - estimate.low


def test_interval_is_that_of_brute_force():
    scores, positive = cases(4, 80, 12)
    estimates = metrics.summarise(Sample.of(scores, positive, 0.35), draws=300, seed=11)
    counts = np.concatenate(list(draw_counts(80, 300, 11))).astype(int)
    drawn = [np.repeat(np.arange(80), row) for row in counts]
    brute = {
        "auroc": [roc_auc_score(positive[i], scores[i]) for i in drawn],
        "auprc": [average_precision_score(positive[i], scores[i]) for i in drawn],
        "brier": [brier_score_loss(positive[i], scores[i]) for i in drawn],
        "sensitivity": [np.mean(scores[i][positive[i]] >= 0.35) for i in drawn],
        "specificity": [np.mean(scores[i][~positive[i]] < 0.35) for i in drawn],
        "ppv": [np.mean(positive[i][scores[i] >= 0.35]) for i in drawn],
        "npv": [np.mean(~positive[i][scores[i] < 0.35]) for i in drawn],
        "referral_rate": [np.mean(scores[i] >= 0.35) for i in drawn],
    }
    for name, values in brute.items():
        found = estimates[name]
        low, high = np.quantile(values, [0.025, 0.975])
        if name == "auroc":  # no lower bound is above that of classes of this size that do not overlap
            low = min(low, 0.025 ** (1 / min(positive.sum(), (~positive).sum())))
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
        assert found.low <= found.value <= found.high
        assert found.draws == 300


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_draw_measured_on_cells_is_that_measured_on_cases(share):
    """The same draws of 6,000 cases both ways: merging moves them little beside their spread."""
    scores, positive = cases(8, 6000, share=share)
    sample = Sample.of(np.where(np.arange(6000) % 50, scores, np.inf), positive, 0.2)
    counts = np.concatenate(list(draw_counts(6000, 150, 0)))
    exact, merged = Cells.exact(sample), Cells.merged(sample)
    by_case, by_cell = (everything(cells, cells.tally(counts)) for cells in (exact, merged))
    at_sample = everything(exact, exact.sample_counts()) - everything(merged, merged.sample_counts())
    moved = np.sqrt(np.mean((by_cell + at_sample - by_case) ** 2, axis=0))
    assert (moved < 0.05 * by_case.std(axis=0)).all()


def test_interval_from_cells_is_that_of_the_exact_bootstrap():
    """Independent draws, so the ends may differ by Monte-Carlo error: here 4 standard errors."""
    scores, positive = cases(9, 6000)
    sample, draws = Sample.of(scores, positive, 0.2), 1000
    exact = Cells.exact(sample)
    by_case = np.concatenate([everything(exact, exact.tally(block)) for block in draw_counts(6000, draws, 1)])
    ends = np.quantile(by_case, [0.025, 0.975], axis=0)
    density = 0.0584  # of a standard normal at its 2.5 % point
    tolerance = 4 * np.sqrt(2) * np.sqrt(0.025 * 0.975 / draws) / density * by_case.std(axis=0)
    for estimate, low, high, allowed in zip(
        bootstrap(sample, everything, draws, 2), *ends, tolerance, strict=True
    ):
        assert estimate.low == pytest.approx(low, abs=allowed)
        assert estimate.high == pytest.approx(high, abs=allowed)


def test_what_merging_misses_at_the_sample_is_added_to_every_draw():
    """Shown by a number that merging changes altogether: that of the distinct scores."""
    sample = Sample.of(*cases(0, 5000))
    (found,) = bootstrap(
        sample, lambda cells, counts: np.full((len(counts), 1), cells.lowest_score.size), 100, 0
    )
    assert (found.value, found.low, found.high) == (5001, 5001, 5001)


def test_no_draw_of_separated_classes_has_another_auroc():
    scores = np.linspace(0, 1, 9000)
    sample, of = Sample.of(scores, scores > 0.77, 0.5), (metrics.auroc, metrics.auprc, metrics.sensitivity)
    drawn = bootstrap(sample, lambda cells, counts: np.stack([one(cells, counts) for one in of], 1), 200, 0)
    for found in drawn:
        assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)
    estimates = metrics.summarise(sample, 200, 0)
    assert estimates["calibration_slope"] is None
    assert estimates["auroc"].low == pytest.approx(0.025 ** (1 / np.count_nonzero(scores > 0.77)))


@pytest.mark.parametrize("size", [60, 20_000])
def test_draw_has_as_many_cases_as_the_sample_and_binomial_counts(size):
    """Both ways of drawing; the counts of a cell have the mean and the variance of a binomial law."""
    scores, positive = cases(0, size, levels=5)
    sample = Sample.of(scores, positive)
    cells, draws = Cells.exact(sample), 4000
    seen = []
    bootstrap(sample, lambda _, counts: seen.append(counts) or counts.sum(axis=(1, 2))[:, None], draws, 0)
    counts = np.concatenate([block for block in seen if len(block) > 1])
    share = cells.cases / size
    variance = size * share * (1 - share)
    assert len(counts) >= draws - 1
    assert (counts.sum(axis=(1, 2)) == size).all()
    assert counts.mean(axis=0) == pytest.approx(cells.cases, abs=5 * np.sqrt(variance.max() / draws))
    assert counts.var(axis=0) == pytest.approx(variance, rel=5 * np.sqrt(2 / draws), abs=0.05)
    assert not counts[:, cells.cases == 0].any()


def test_repeated_cases_of_one_unit_have_the_interval_of_one_case_each():
    """Four equal photographs say what one says; taken for four patients they halve the interval."""
    scores, positive = cases(2, 500, 40)
    once = metrics.summarise(Sample.of(scores, positive, 0.3), 1000, 5)
    repeated = Sample.of(np.tile(scores, 4), np.tile(positive, 4), 0.3)
    by_unit = metrics.summarise(repeated, 1000, 5, units=np.tile(np.arange(500), 4))
    by_case = metrics.summarise(repeated, 1000, 5)
    for name, expected in once.items():
        found = by_unit[name]
        assert (found.value, found.low, found.high) == pytest.approx(
            (expected.value, expected.low, expected.high), abs=1e-9
        )
        assert 0.4 < width(by_case[name]) / width(expected) < 0.6


def test_repeated_cases_of_one_unit_have_the_interval_of_one_case_each_when_merged_into_cells():
    scores, positive = cases(3, 5000)
    once = metrics.summarise(Sample.of(scores, positive, 0.3), 600, 5)
    repeated = Sample.of(np.repeat(scores, 4), np.repeat(positive, 4), 0.3)
    by_unit = metrics.summarise(repeated, 600, 6, units=np.repeat(np.arange(5000), 4))
    by_case = metrics.summarise(repeated, 600, 6)
    for name, expected in once.items():
        assert width(by_unit[name]) / width(expected) == pytest.approx(1, abs=0.2)
        # The bandwidth of a smooth error falls with its noise, which is then of the order of 1 / cases^(1/3).
        narrower = 4 ** (-1 / 3) if name == "smooth_calibration_error" else 0.5
        assert width(by_case[name]) / width(expected) == pytest.approx(narrower, abs=0.1)


def test_cases_of_a_unit_are_drawn_together():
    units = np.array([7, 3, 7, 9, 3, 7])  # numbers with gaps, as in a slice of a larger table
    counts = np.concatenate(list(draw_counts(6, 400, 0, units)))
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 0] == counts[:, 5]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.2)


def test_units_of_one_case_are_cases():
    scores, positive = cases(1, 150)
    sample = Sample.of(scores, positive, 0.3)
    assert metrics.summarise(sample, 200, 0, np.arange(150)) == metrics.summarise(sample, 200, 0)


@pytest.mark.parametrize("size", [30, 5000])
def test_units_of_other_cases_are_refused(size):
    scores, positive = cases(0, size)
    with pytest.raises(CalibrationError, match=f"one unit for each of {size} cases"):
        metrics.summarise(Sample.of(scores, positive), 100, 0, units=np.arange(size - 1))


def test_paired_difference_is_that_of_brute_force():
    first, positive = cases(5, 90, 20)
    second, _ = cases(6, 90, 7)
    units = np.arange(90) // 2
    for given_units in (None, units):
        found = metrics.auroc_difference(first, second, positive, draws=200, seed=3, units=given_units)
        counts = np.concatenate(list(draw_counts(90, 200, 3, given_units))).astype(int)
        drawn = [np.repeat(np.arange(90), row) for row in counts]
        values = [roc_auc_score(positive[i], first[i]) - roc_auc_score(positive[i], second[i]) for i in drawn]
        assert found.value == pytest.approx(roc_auc_score(positive, first) - roc_auc_score(positive, second))
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


def test_paired_difference_from_cells_is_that_of_brute_force():
    first, positive = cases(5, 5000)
    second, _ = cases(6, 5000)
    found = metrics.auroc_difference(first, second, positive, draws=100, seed=3)
    counts = np.concatenate(list(draw_counts(5000, 100, 3))).astype(int)
    drawn = [np.repeat(np.arange(5000), row) for row in counts]
    values = [roc_auc_score(positive[i], first[i]) - roc_auc_score(positive[i], second[i]) for i in drawn]
    expected = roc_auc_score(positive, first) - roc_auc_score(positive, second)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(values, [0.025, 0.975])), abs=0.02 * np.std(values)
    )


@pytest.mark.parametrize("size", [200, 5000])
def test_model_does_not_differ_from_itself(size):
    scores, positive = cases(0, size)
    found = metrics.auroc_difference(scores, scores, positive, draws=100, seed=0)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [200, 5000])
def test_seed_decides_the_draws(size):
    scores, positive = cases(0, size)
    sample = Sample.of(scores, positive, 0.3)
    assert metrics.summarise(sample, 100, 1) == metrics.summarise(sample, 100, 1)
    assert metrics.summarise(sample, 100, 1) != metrics.summarise(sample, 100, 2)


def test_sixteen_times_the_cases_cost_less_than_four_times_as_much():
    def seconds(size):
        scores, positive = cases(0, size)
        began = time.process_time()
        metrics.summarise(Sample.of(scores, positive, 0.2), 500, 0)
        return time.process_time() - began

    seconds(6000)  # warms up
    assert seconds(96_000) < 4 * seconds(6000)


@pytest.mark.parametrize("levels", [3, None])
def test_many_units_are_drawn_whole_whether_their_kinds_are_few_or_not(levels):
    """Means and variances of the counts are those of drawing units; a patient's four cases move together."""
    scores, positive = cases(4, 2500, levels)
    sample = Sample.of(np.repeat(scores, 4), np.repeat(positive, 4), 0.5)
    cells, draws, seen = Cells.of(sample), 1500, []
    units = np.repeat(np.arange(2500) * 7, 4)  # numbers with gaps
    bootstrap(
        sample, lambda _, counts: seen.append(counts) or counts.sum(axis=(1, 2))[:, None], draws, 0, units
    )
    counts = np.concatenate([block for block in seen if len(block) > 1])
    assert (counts.sum(axis=(1, 2)) == 10_000).all()
    assert (counts % 4 == 0).all()
    share = cells.cases / 10_000
    variance = 16 * 2500 * share * (1 - share)
    assert counts.mean(axis=0) == pytest.approx(cells.cases, abs=5 * np.sqrt(variance.max() / draws))
    assert counts.var(axis=0).sum() == pytest.approx(variance.sum(), rel=0.05)


def test_very_many_units_give_the_intervals_of_drawing_them_one_by_one(monkeypatch):
    """Patients of one to five cases whose scores lie together, to 4 errors of a simulated quantile."""
    draws, random = 1500, np.random.default_rng(11)
    sizes = random.integers(1, 6, 15_000)
    units = np.repeat(np.arange(sizes.size) * 3, sizes)  # numbers with gaps
    risk = np.repeat(random.normal(-2, 1, sizes.size), sizes)
    positive = random.random(units.size) < 1 / (1 + np.exp(-risk))
    sample = Sample.of(1 / (1 + np.exp(-risk - 0.3 * random.normal(size=units.size))), positive, 0.3)
    monkeypatch.setattr(bootstrap_module, "_MANY_UNITS", 10_000)
    by_law = metrics.summarise(sample, draws, 0, units)
    by_case = metrics.summarise(sample, draws, 0)
    monkeypatch.setattr(bootstrap_module, "_MANY_UNITS", units.size)
    one_by_one = metrics.summarise(sample, draws, 1, units)
    for name, expected in one_by_one.items():
        found, error = by_law[name], (expected.high - expected.low) / (2 * 1.96)
        assert found.value == expected.value
        for end in ("low", "high"):
            assert getattr(found, end) == pytest.approx(getattr(expected, end), abs=0.4 * error), (name, end)
    wider = by_law["referral_rate"], by_case["referral_rate"]
    assert wider[0].high - wider[0].low > 1.4 * (wider[1].high - wider[1].low), "cases are not independent"

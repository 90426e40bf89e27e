"""What merging cases into cells keeps, and what it may lose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_triage.calibrate import metrics
from lesion_triage.calibrate.cells import MERGE_ABOVE, MERGED_CELLS, Cells, Sample

SUMS_OVER_CASES = (
    metrics.brier,
    metrics.log_loss,
    metrics.calibration_error,
    metrics.auroc,
    metrics.sensitivity,
    metrics.specificity,
    metrics.ppv,
    metrics.npv,
    metrics.referral_rate,
)


@st.composite
def samples(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    size = draw(st.integers(2, 3000))
    positive = rng.random(size) < draw(st.sampled_from([0.01, 0.3, 0.9]))
    scores = 1 / (1 + np.exp(-(rng.normal(size=size) * 2 + 2 * positive - 2)))
    levels = draw(st.sampled_from([None, 3, 700]))
    if levels:
        scores = np.rint(scores * levels) / levels
    scores[rng.random(size) < draw(st.sampled_from([0.0, 0.1]))] = np.inf
    scores[0] = 0.5  # a sample with no score at all has nothing to merge
    return Sample.of(scores, positive, draw(st.sampled_from([0.0, 0.2, 0.5, 1.0])))


@given(sample=samples())
@settings(max_examples=80, deadline=None)
def test_merging_loses_nothing_of_a_sum_over_cases(sample):
    exact, merged = Cells.exact(sample), Cells.merged(sample)
    for metric in SUMS_OVER_CASES:
        expected = metric(exact, exact.sample_counts())
        assert metric(merged, merged.sample_counts()) == pytest.approx(expected, rel=1e-10, nan_ok=True)


def test_merging_moves_the_average_precision_by_less_than_one_part_in_ten_thousand():
    rng = np.random.default_rng(0)
    scores = rng.random(20_000) / 2
    sample = Sample.of(scores, rng.random(20_000) < 2 * scores**2)
    exact, merged = Cells.exact(sample), Cells.merged(sample)
    assert metrics.auprc(merged, merged.sample_counts()) == pytest.approx(
        metrics.auprc(exact, exact.sample_counts()), rel=1e-4
    )


@given(sample=samples(), border=st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_cell_is_never_on_both_sides_of_a_limit(sample, border):
    cells = Cells.merged(sample, [border])
    cell = cells.slot[sample.order] % cells.lowest_score.size
    for split in (sample.referred, sample.scores >= border, np.isinf(sample.scores)):
        assert not set(cell[split]) & set(cell[~split])
    assert (cells.referred[cell] == sample.referred).all()
    tied = sample.scores[1:] == sample.scores[:-1]
    assert (cell[1:][tied] == cell[:-1][tied]).all()
    assert (np.diff(cell) >= 0).all()


@given(sample=samples())
@settings(max_examples=80, deadline=None)
def test_cell_of_several_scores_has_little_of_either_class(sample):
    cells = Cells.merged(sample)
    totals = np.maximum(cells.cases[:, :-1].sum(axis=1), 1)
    cell = cells.slot[sample.order] % cells.lowest_score.size
    for number in np.unique(cell[: sample.scored]):
        inside = cell[: sample.scored] == number
        scores, positive = sample.scores[: sample.scored][inside], sample.positive[: sample.scored][inside]
        before_last = positive[scores < scores[-1]]
        assert (~before_last).sum() / totals[0] < np.pi / MERGED_CELLS + 1e-9
        assert before_last.sum() / totals[1] < np.pi / MERGED_CELLS + 1e-9


def test_few_distinct_scores_are_not_merged_however_many_cases():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 101, 50_000) / 100
    cells = Cells.of(Sample.of(scores, rng.random(50_000) < scores))
    assert cells.lowest_score[:-1].tolist() == sorted(set(scores))


def test_many_distinct_scores_are_merged():
    scores = np.linspace(0, 1, MERGE_ABOVE + 1)
    positive = np.random.default_rng(0).random(scores.size) < scores
    assert Cells.of(Sample.of(scores[1:], positive[1:])).lowest_score.size == MERGE_ABOVE + 1
    assert Cells.of(Sample.of(scores, positive)).lowest_score.size < 1.1 * MERGED_CELLS


def test_tally_counts_the_cases_of_a_draw():
    sample = Sample.of(np.array([0.9, 0.1, 0.1, np.inf]), np.array([True, False, True, False]))
    cells = Cells.exact(sample)
    tally = cells.tally(np.array([[1.0, 2.0, 0.0, 3.0], [0.0, 0.0, 4.0, 0.0]]))
    negatives, positives = tally[:, 0].tolist(), tally[:, 1].tolist()
    assert negatives == [[2.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
    assert positives == [[0.0, 1.0, 0.0], [4.0, 0.0, 0.0]]

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lesion_triage.audit.baselines import (
    FOLDS,
    auroc_interval,
    cross_fitted_auroc,
    cross_fitted_scores,
    unit_folds,
)
from lesion_triage.data.categorical import Categorical, quantile_bins


def coded(values) -> Categorical:
    return Categorical.from_values(values)


def test_the_interval_solves_newcombes_equation_at_both_ends():
    found = auroc_interval(0.8, 30, 50)
    for theta in (found.low, found.high):
        mean = (30 + 50) / 2 - 1
        variance = (
            theta * (1 - theta) * (1 + mean * (1 - theta) / (2 - theta) + mean * theta / (1 + theta)) / 1500
        )
        assert abs(0.8 - theta) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random, truth, inside, draws = np.random.default_rng(0), 0.76025, 0, 200  # Phi(1 / sqrt 2)
    for _ in range(draws):
        scores = np.concatenate([random.normal(1, 1, 40), random.normal(0, 1, 80)])
        label = np.repeat([True, False], [40, 80])
        found = auroc_interval(roc_auc_score(label, scores), 40, 80)
        inside += found.low <= truth <= found.high
    assert inside / draws >= 0.90


def test_separated_classes_still_have_an_interval_with_a_width():
    found = auroc_interval(1.0, 5, 5)
    assert found.low < 0.8
    assert found.high == pytest.approx(1.0)


def test_cells_give_what_a_regression_on_rows_gives():
    random = np.random.default_rng(1)
    label = random.random(400) < 0.4
    one = np.where(random.random(400) < 0.7, label.astype(int), random.integers(0, 3, 400))
    other = random.integers(0, 4, 400)
    columns = [
        Categorical(one.astype(np.intp), ("a", "b", "c")),
        Categorical(other.astype(np.intp), tuple("wxyz")),
    ]
    fold = unit_folds(np.arange(400), seed=7)
    found = cross_fitted_scores(columns, label, fold)
    design = np.concatenate([np.eye(3)[one], np.eye(4)[other]], axis=1)
    expected = np.empty(400)
    for number in range(FOLDS):
        model = LogisticRegression(max_iter=1000).fit(design[fold != number], label[fold != number])
        expected[fold == number] = model.predict_proba(design[fold == number])[:, 1]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_column_that_is_the_label_is_found_and_one_that_is_noise_is_not():
    random = np.random.default_rng(2)
    label = random.random(1000) < 0.3
    fold = unit_folds(np.arange(1000), 0)
    telling, _ = cross_fitted_auroc([coded(np.where(label, "x", "y"))], label, fold)
    noise, _ = cross_fitted_auroc([coded(random.choice(list("abcdefgh"), 1000))], label, fold)
    assert telling.low > 0.95
    assert noise.value < 0.58


@pytest.mark.parametrize("positives", [35, 14])
def test_what_is_the_same_in_every_row_has_an_auroc_of_one_half(positives):
    label = np.arange(70) < positives
    found, _ = cross_fitted_auroc([coded(["a"] * 70)], label, unit_folds(np.arange(70), 0))
    assert found.value == 0.5


@pytest.mark.parametrize("count", [100, 400])
def test_cross_fitting_does_not_lower_the_auroc_of_a_weak_association(count):
    """A property of 85 % of the positives and half of the others ranks 0.5 + (0.85 - 0.5) / 2."""
    values = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        label = random.permutation(count) < count // 5
        shown = random.random(count) < np.where(label, 0.85, 0.5)
        found, _ = cross_fitted_auroc([coded(shown)], label, unit_folds(np.arange(count), seed))
        values.append(found.value)
    assert np.mean(values) == pytest.approx(0.675, abs=0.02)


def test_rows_of_one_unit_are_in_one_fold_and_folds_have_equally_many_units():
    units = np.repeat(np.arange(50), 3)
    fold = unit_folds(units, seed=1)
    assert len(set(zip(units.tolist(), fold.tolist(), strict=True))) == 50
    assert np.bincount(fold).tolist() == [30] * FOLDS


def test_a_unit_never_predicts_itself():
    # Each unit has a level of its own: without other units nothing is known of it.
    random = np.random.default_rng(3)
    units = np.repeat(np.arange(100), 5)
    label = np.repeat(random.random(100) < 0.5, 5)
    names = Categorical(units, tuple(map(str, range(100))))
    by_name, _ = cross_fitted_auroc([names.merge_rare(49)], label, unit_folds(units, 0))
    assert by_name.low < 0.65


def test_too_few_rows_of_a_class_are_not_measured():
    label = np.arange(100) < 5
    fold = unit_folds(np.arange(100), 0)
    found, scores = cross_fitted_auroc([coded(["a"] * 50 + ["b"] * 50)], label, fold)
    assert scores is None
    assert math.isnan(found.value)


def test_bins_are_quantiles_and_unknown_is_a_level_of_its_own():
    values = np.array([np.nan, *range(100)])
    found = quantile_bins(values, 4)
    assert found.levels[found.codes[0]] == ""
    assert np.bincount(found.codes).tolist() == [1, 25, 25, 25, 25]

"""Logistic regression by Newton steps: against scikit-learn, and where no maximum exists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from lesion_triage.calibrate.logistic import logistic_regression, univariate_logistic_regressions


def cases(seed, size=400, slope=1.5, intercept=-2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size) * 2
    return logits, rng.random(size) < 1 / (1 + np.exp(-(slope * logits + intercept)))


def test_fits_without_a_maximum_are_nan_and_leave_the_others_alone():
    x, truth = np.array([-2.0, -1.0, 0.5, 0.0, 1.0, 2.0]), np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    weights = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]], dtype=float)
    lines = univariate_logistic_regressions(x, truth, weights)
    assert np.isfinite(lines[0]).all()
    assert np.isnan(lines[1:]).all()


@pytest.mark.parametrize("seed", range(3))
def test_regression_on_a_few_columns_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    columns = np.stack([rng.normal(size=300), 1e3 * rng.random(300), np.ones(300)])
    truth = rng.random(300) < 1 / (1 + np.exp(-columns[0] + 2e-3 * columns[1]))
    coefficients, loss = logistic_regression(columns, truth.astype(float))
    reference = LogisticRegression(C=1e12, tol=1e-12, solver="newton-cholesky", fit_intercept=False)
    reference.fit(columns.T, truth)
    assert coefficients == pytest.approx(reference.coef_[0], rel=1e-6)
    assert loss == pytest.approx(log_loss(truth, reference.predict_proba(columns.T), normalize=False))


def test_one_column_of_regression_is_the_line_of_logistic_lines():
    logits, positive = cases(1)
    truth = positive.astype(float)
    coefficients, _ = logistic_regression(np.stack([logits, np.ones_like(logits)]), truth)
    assert coefficients == pytest.approx(
        univariate_logistic_regressions(logits, truth, np.ones((1, logits.size)))[0], rel=1e-6
    )


@given(st.floats(-300, 300), st.floats(-300, 300))
def test_coefficients_do_not_depend_on_the_units_of_the_columns(one, other):
    logits, positive = cases(2, 60)
    columns, units = (
        np.stack([logits, np.tanh(logits), np.ones_like(logits)]),
        np.array([10.0**one, 10.0**other, 1]),
    )
    plain, loss = logistic_regression(columns, positive.astype(float))
    scaled, same_loss = logistic_regression(columns * units[:, None], positive.astype(float))
    assert scaled * units == pytest.approx(plain, rel=1e-5)
    assert same_loss == pytest.approx(loss)


@pytest.mark.parametrize(
    "columns",
    [
        [[1.0, 2, 3, 4], [2.0, 4, 6, 8]],
        [[0.0, 0, 0, 0], [1, 2, 3, 4]],
        [[5.0, 5, 5, 5], [1, 1, 1, 1]],
        [[1.0], [2.0]],
    ],
)
def test_columns_that_depend_on_each_other_have_no_fit(columns):
    columns = np.array(columns)
    coefficients, loss = logistic_regression(columns, np.linspace(0.2, 0.6, columns.shape[1]))
    assert np.isnan(coefficients).all()
    assert loss == np.inf

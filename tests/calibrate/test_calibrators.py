"""The five calibrators against scikit-learn and scipy, what they refuse, and the choice between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from lesion_triage.bundle.calibration import calibrated_score, venn_abers_pair
from lesion_triage.calibrate.calibrators import (
    KINDS,
    choose,
    cross_fitted,
    fit,
    fit_beta,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    fit_venn_abers,
)
from lesion_triage.errors import CalibrationError

every_kind = pytest.mark.parametrize("kind", KINDS)


def cases(seed, size=400, slope=1.5, intercept=-2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size) * 2
    return logits, rng.random(size) < 1 / (1 + np.exp(-(slope * logits + intercept)))


def scores_of(calibrator, logits):
    return np.array([calibrated_score(calibrator, logit) for logit in np.asarray(logits).tolist()])


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
    assert scores_of(fitted, logits).mean() == pytest.approx(smoothed(positive).mean(), abs=1e-9)


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
        assert calibrated_score(moved, scale * (logit + shift)) == pytest.approx(
            calibrated_score(plain, logit), abs=1e-6
        )


@given(power=st.integers(-300, 300), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_huge_and_tiny_logits_fit_or_are_refused(power, seed):
    logits, positive = cases(seed, 80)
    fitted = fit_platt(logits * 10.0**power, positive)
    assert 0 < fitted.slope < math.inf


@pytest.mark.parametrize("seed", range(5))
def test_temperature_is_the_maximum_likelihood_of_smoothed_targets(seed):
    logits, positive = cases(seed, slope=0.6, intercept=-0.2)
    targets = smoothed(positive)

    def loss(log_temperature):
        margin = logits * np.exp(-log_temperature)
        return -(targets * log_expit(margin) + (1 - targets) * log_expit(-margin)).sum()

    reference = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(logits, positive).temperature == pytest.approx(np.exp(reference.x), rel=1e-6)


def test_no_temperature_can_move_the_middle_and_the_sentence_says_what_can():
    logits, positive = cases(0, slope=1, intercept=-3)
    with pytest.raises(CalibrationError, match="choose a calibrator with an intercept, such as 'platt'"):
        fit_temperature(logits + 6, positive)


def beta_cases(seed, a, b, c, size=500):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size) * 1.5
    return logits, rng.random(size) < expit(a * log_expit(logits) - b * log_expit(-logits) + c)


def beta_loss(parameters, logits, targets):
    a, b, c = parameters
    margin = a * log_expit(logits) - b * log_expit(-logits) + c
    return -(targets * log_expit(margin) + (1 - targets) * log_expit(-margin)).sum()


@pytest.mark.parametrize("seed", range(5))
def test_beta_is_the_logistic_regression_of_its_paper(seed):
    logits, positive = beta_cases(seed, a=0.8, b=1.6, c=-0.5)
    fitted, targets = fit_beta(logits, positive), smoothed(positive)
    columns = np.stack([log_expit(logits), -log_expit(-logits)], axis=1)
    reference = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(
        np.tile(columns, (2, 1)),
        np.repeat([1, 0], logits.size),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    assert (reference.coef_ > 0).all(), "the sample needs no constraint"
    assert (fitted.a, fitted.b) == pytest.approx(reference.coef_[0], rel=1e-5)
    assert fitted.c == pytest.approx(reference.intercept_[0], rel=1e-5)


@pytest.mark.parametrize(("a", "b"), [(0, 2), (2, 0), (0.05, 1), (1, 0.05)])
@pytest.mark.parametrize("seed", range(3))
def test_beta_has_the_highest_likelihood_that_its_two_signs_allow(seed, a, b):
    logits, positive = beta_cases(seed, a, b, c=0.0, size=120)
    fitted, targets = fit_beta(logits, positive), smoothed(positive)
    reference = minimize(
        beta_loss, (1, 1, 0), args=(logits, targets), bounds=[(0, None), (0, None), (None, None)], tol=1e-12
    )
    assert beta_loss((fitted.a, fitted.b, fitted.c), logits, targets) <= reference.fun + 1e-9 * reference.fun


def test_beta_sets_the_slope_that_would_be_negative_to_zero():
    logits = np.linspace(-6, 6, 200)
    odds = expit(3 * log_expit(logits) + 0.3 * log_expit(-logits) + 2)  # b = -0.3: falls again at the top
    positive = np.random.default_rng(1).random(logits.size) < odds
    fitted = fit_beta(logits, positive)
    assert fitted.b == 0 < fitted.a


def test_two_distinct_logits_are_enough_for_beta():
    logits, positive = np.repeat([-1.0, 2.0], [30, 20]), np.arange(50) % 10 < np.repeat([2, 7], [30, 20])
    targets = smoothed(positive)
    expected = [targets[logits == value].mean() for value in (-1.0, 2.0)]
    assert scores_of(fit_beta(logits, positive), [-1.0, 2.0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_is_scikit_learns(seed):
    logits, positive = cases(seed)
    logits = np.round(logits, seed % 3)
    places = np.linspace(-8, 8, 301)
    reference = IsotonicRegression(out_of_bounds="clip").fit(logits, positive)
    assert scores_of(fit_isotonic(logits, positive), places) == pytest.approx(
        reference.predict(places), abs=1e-12
    )


def test_venn_abers_is_two_isotonic_regressions_with_the_case_added():
    logits, positive = cases(4, 150)
    logits = np.round(logits, 1)
    fitted = fit_venn_abers(logits, positive)
    for place in (-9.0, -2.0, -0.1, 0.0, 0.05, 1.3, 9.0):
        expected = [
            IsotonicRegression()
            .fit(np.append(logits, place), np.append(positive, outcome))
            .predict([place])[0]
            for outcome in (0.0, 1.0)
        ]
        assert venn_abers_pair(fitted, place) == pytest.approx(expected, abs=1e-12)


def test_venn_abers_never_says_0_or_1_where_isotonic_does():
    logits, positive = np.linspace(-3, 3, 40), np.arange(40) >= 20
    assert set(scores_of(fit_isotonic(logits, positive), logits)) == {0.0, 1.0}
    scores = scores_of(fit_venn_abers(logits, positive), np.linspace(-9, 9, 50))
    assert 0 < scores.min() < scores.max() < 1


@every_kind
def test_fit_goes_by_the_name_of_the_kind(kind):
    assert fit(kind, *cases(0)).kind == kind


@every_kind
@given(st.data())
@settings(max_examples=40)
def test_whatever_the_cases_scores_rise_or_the_fit_is_refused(kind, data):
    size = data.draw(st.integers(2, 30))
    values = data.draw(
        st.sampled_from(
            [st.floats(-1e9, 1e9), st.sampled_from([-800.0, -0.5, 0.0, 1e-9, 800.0]), st.integers(-3, 3)]
        )
    )
    logits = np.array(data.draw(st.lists(values, min_size=size, max_size=size)), dtype=np.float64)
    positive = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    try:
        calibrator = fit(kind, logits, positive)
    except CalibrationError:
        return
    scores = scores_of(calibrator, np.sort(logits))
    assert (np.diff(scores) >= 0).all()
    # The others may rise too little, or too far out, for a number between 0 and 1 to show it.
    assert scores[0] < scores[-1] or kind not in {"isotonic", "venn_abers"}


@every_kind
@pytest.mark.parametrize("power", [-300, -12, 12, 300])
def test_huge_and_tiny_logits_have_a_fit(kind, power):
    logits, positive = cases(1, 80, intercept=0.0)
    logits = logits * 10.0**power
    if kind == "beta" and power < 0:  # it sees p = sigmoid(logit), which is a half for all of them
        with pytest.raises(
            CalibrationError, match="choose a calibrator of the logit itself, such as 'platt'"
        ):
            fit(kind, logits, positive)
    else:
        assert (np.diff(scores_of(fit(kind, logits, positive), np.sort(logits))) >= 0).all()


@every_kind
def test_separated_classes_have_a_fit(kind):
    calibrator = fit(kind, np.linspace(-3, 3, 100), np.arange(100) >= 50)
    low, high = scores_of(calibrator, [-2.0, 2.0])
    assert low < 0.1
    assert high > 0.9


@every_kind
def test_two_cases_have_a_fit(kind):
    low, high = scores_of(fit(kind, np.array([-1.0, 1.0]), np.array([False, True])), [-1.0, 1.0])
    assert low < high


@every_kind
def test_many_cases_recover_the_truth(kind):
    logits, positive = cases(0, 200_000, slope=0.8, intercept=0.0)
    places = np.linspace(-3, 3, 25)
    assert scores_of(fit(kind, logits, positive), places) == pytest.approx(expit(0.8 * places), abs=0.03)


@every_kind
def test_scores_that_rank_backwards_are_refused(kind):
    logits, positive = cases(0)
    with pytest.raises(CalibrationError, match="do not rank positive cases above the others; check how"):
        fit(kind, -logits, positive)


@every_kind
def test_constant_logits_are_refused(kind):
    with pytest.raises(CalibrationError, match=r"expected more than 0.*do not rank positive cases above"):
        fit(kind, np.full(50, 0.7), np.arange(50) < 10)


@every_kind
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logit_that_is_no_number_is_refused(kind, value):
    with pytest.raises(CalibrationError, match="1 of 3 logits are not finite"):
        fit(kind, np.array([0.0, 1.0, value]), np.array([False, True, True]))


@every_kind
@pytest.mark.parametrize("outcome", [True, False])
def test_one_class_only_is_refused(kind, outcome):
    with pytest.raises(CalibrationError, match="both classes"):
        fit(kind, np.arange(5.0), np.full(5, outcome))


@every_kind
def test_more_outcomes_than_logits_are_refused(kind):
    with pytest.raises(CalibrationError, match="as many logits as outcomes"):
        fit(kind, np.arange(5.0), np.arange(6) > 2)


def in_units(seed, units=24, most=4):
    """Cases of patients, some of whom have cases of both outcomes."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"p{number}" for number in range(units)], rng.integers(1, most, units))
    logits, positive = cases(seed, names.size, slope=1, intercept=-1)
    return logits, positive, names.tolist()


def unseen_by(case, kind, logits, positive, units, folds):
    """The cases whose score stays as it is, to the last bit, when the logit of ``case`` changes."""
    moved = logits.copy()
    moved[case] += 0.37
    before, after = (cross_fitted(kind, x, positive, units, folds) for x in (logits, moved))
    return frozenset(np.flatnonzero(before == after)) | {case}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("folds", [2, 5])
def test_no_score_depends_on_its_own_case_or_on_another_of_its_unit(seed, folds):
    logits, positive, units = in_units(seed)
    found = [unseen_by(case, "platt", logits, positive, units, folds) for case in range(logits.size)]
    for case, fold in enumerate(found):
        assert {other for other, unit in enumerate(units) if unit == units[case]} <= fold
        assert all(found[other] == fold for other in fold)
        assert fold < set(range(logits.size)), "a planted logit must be seen by the other folds"
    dealt = set(found)
    assert len(dealt) == folds
    for has_positive in (True, False):
        counts = [
            sum(
                positive[np.array(units) == unit].any() == has_positive
                for unit in {units[case] for case in fold}
            )
            for fold in dealt
        ]
        assert max(counts) - min(counts) <= 1


@every_kind
def test_every_score_is_that_of_a_fit_without_its_fold(kind):
    logits, positive, units = in_units(1, units=60)
    scores = cross_fitted(kind, logits, positive, units)
    for fold in {unseen_by(case, "platt", logits, positive, units, 5) for case in range(0, logits.size, 7)}:
        inside = np.isin(np.arange(logits.size), list(fold))
        calibrator = fit(kind, logits[~inside], positive[~inside])
        assert scores_of(calibrator, logits[inside]).tolist() == scores[inside].tolist()


@every_kind
def test_the_order_of_the_cases_does_not_matter_and_the_seed_does(kind):
    logits, positive, units = in_units(2, units=60)
    scores = cross_fitted(kind, logits, positive, units, seed=7)
    order = np.random.default_rng(0).permutation(logits.size)
    turned = cross_fitted(kind, logits[order], positive[order], [units[case] for case in order], seed=7)
    assert turned == pytest.approx(scores[order], rel=1e-9)
    assert (cross_fitted(kind, logits, positive, units, seed=8) != scores).any()


def test_one_patient_cannot_be_cross_fitted():
    logits, positive = cases(0, 30)
    with pytest.raises(CalibrationError, match="both classes"):
        cross_fitted("platt", logits, positive, ["p1"] * 30)


@pytest.mark.parametrize(("units", "folds"), [(["a"] * 29, 5), ([str(n) for n in range(30)], 1)])
def test_folds_that_cannot_be_dealt_are_refused(units, folds):
    logits, positive = cases(0, 30)
    with pytest.raises(CalibrationError, match="one unit per case and at least 2 folds"):
        cross_fitted("platt", logits, positive, units, folds)
    with pytest.raises(CalibrationError, match="one unit per case and at least 2 folds"):
        choose(logits, positive, units, ["platt"], folds)


def test_the_kind_of_lowest_cross_fitted_log_loss_is_chosen():
    logits, positive, units = in_units(5, units=150)
    chosen, losses = choose(logits, positive, units, KINDS, folds=4, seed=3)
    assert tuple(losses) == KINDS
    for kind in KINDS:
        scores = cross_fitted(kind, logits, positive, units, folds=4, seed=3).clip(1e-12, 1 - 1e-12)
        assert losses[kind] == pytest.approx(log_loss(positive, scores))
    assert losses[chosen] == min(losses.values())


@pytest.mark.parametrize(
    ("truth", "best"),
    [
        (lambda logits: expit(0.7 * logits - 1.5), {"platt", "beta"}),
        (lambda logits: expit(0.25 * log_expit(logits) - 3 * log_expit(-logits) - 1), {"beta"}),
        (lambda logits: 0.1 + 0.3 * (logits > -1) + 0.5 * (logits > 2), {"venn_abers", "isotonic"}),
    ],
    ids=["a line", "two slopes", "steps"],
)
def test_the_choice_follows_the_truth(truth, best):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=4000) * 2
    positive = rng.random(logits.size) < truth(logits)
    chosen, _ = choose(logits, positive, [str(case) for case in range(logits.size)], KINDS)
    assert chosen in best


def test_a_kind_that_cannot_be_fitted_is_left_out_and_recorded():
    logits, positive = cases(0, 400, slope=1, intercept=-3)
    units = [str(case) for case in range(logits.size)]
    chosen, losses = choose(logits + 6, positive, units, ["temperature", "platt"])
    assert chosen == "platt"
    assert math.isnan(losses["temperature"])
    with pytest.raises(
        CalibrationError, match=r"none of temperature can be fitted .*the last error: the inverse temperature"
    ):
        choose(logits + 6, positive, units, ["temperature"])

"""Pooling and Venn-Abers knots against scikit-learn, the venn-abers package and their definitions."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from lesion_triage.bundle.calibration import VennAbersCalibrator, venn_abers_pair
from lesion_triage.calibrate.isotonic import isotonic_knots, venn_abers_knots

# Few distinct logits, so that most samples have ties.
tied_cases = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12)
ALL_PLACES = np.arange(-4, 4.5, 0.5)  # at every logit of the above, between them and beyond


def arrays(cases):
    logits, positive = zip(*cases, strict=True)
    return np.array(logits, dtype=np.float64), np.array(positive)


def isotonic_scores(cases, places):
    """By definition: at a place, the largest over all starts of the smallest over all ends of the mean."""
    return [
        max(
            min(
                Fraction(
                    sum(y for x, y in cases if start <= x <= end), sum(start <= x <= end for x, _ in cases)
                )
                for end, _ in cases
                if end >= place
            )
            for start, _ in cases
            if start <= place
        )
        for place in places
    ]


def predictor(logits, positive):
    knots, p0, p1 = (column.tolist() for column in venn_abers_knots(logits, positive))
    return VennAbersCalibrator(logits=knots, p0=p0, p1=p1)


@given(tied_cases)
def test_pools_are_those_of_the_max_min_formula(cases):
    logits, positive = arrays(cases)
    knots, scores = isotonic_knots(logits, positive)
    exact = isotonic_scores(cases, logits)
    assert np.interp(logits, knots, scores).tolist() == [float(score) for score in exact]


@given(tied_cases)
def test_isotonic_knots_are_scikit_learns_function(cases):
    logits, positive = arrays(cases)
    reference = IsotonicRegression(out_of_bounds="clip").fit(logits, positive)
    ours = np.interp(ALL_PLACES, *isotonic_knots(logits, positive))
    assert ours == pytest.approx(reference.predict(ALL_PLACES), abs=1e-12)


@given(tied_cases)
def test_isotonic_knots_are_ends_of_pools_and_no_others(cases):
    knots, scores = isotonic_knots(*arrays(cases))
    assert (np.diff(knots) > 0).all()
    _, ends = np.unique(scores, return_counts=True)
    assert ends.max() <= 2


@given(tied_cases)
def test_venn_abers_is_isotonic_regression_with_the_case_added_under_either_outcome(cases):
    ours = predictor(*arrays(cases))
    for place in ALL_PLACES.tolist():
        p0, p1 = (float(isotonic_scores([*cases, (place, outcome)], [place])[0]) for outcome in (False, True))
        assert venn_abers_pair(ours, place) == (p0, p1)


@given(tied_cases.filter(lambda cases: len(cases) > 1))
def test_a_case_left_out_and_added_with_its_true_outcome_gets_the_score_of_the_whole(cases):
    # Why Venn-Abers predictors are calibrated: one of the two probabilities is always this one.
    for out, (place, outcome) in enumerate(cases):
        others = cases[:out] + cases[out + 1 :]
        true_one = venn_abers_pair(predictor(*arrays(others)), float(place))[int(outcome)]
        assert true_one == float(isotonic_scores(cases, [place])[0])


@given(tied_cases)
def test_no_knot_can_be_left_out(cases):
    logits, positive = arrays(cases)
    whole = predictor(logits, positive)
    for out in range(len(whole.logits) if len(whole.logits) > 1 else 0):
        rest = {name: np.delete(getattr(whole, name), out).tolist() for name in ("logits", "p0", "p1")}
        less = VennAbersCalibrator(**rest)
        assert any(
            venn_abers_pair(less, place) != venn_abers_pair(whole, place) for place in ALL_PLACES.tolist()
        )


@pytest.mark.parametrize("decimals", [1, 2, 15])
def test_venn_abers_agrees_with_the_package_of_its_authors(decimals):
    settings = np.geterr()
    package = pytest.importorskip("venn_abers.venn_abers")
    np.seterr(**settings)  # importing it turns numpy's warnings off for the whole process
    rng = np.random.default_rng(decimals)
    shares = np.round(rng.random(700), decimals)
    positive = rng.random(shares.size) < shares**2
    places = np.concatenate([shares[:100], np.linspace(-0.1, 1.1, 100)])
    with np.errstate(divide="ignore", invalid="ignore"):
        p0, p1, knots = package.calc_p0p1(np.stack([1 - shares, shares], axis=1), positive.astype(float))
    _, reference = package.calc_probs(p0, p1, knots, np.stack([1 - places, places], axis=1))
    ours = predictor(shares, positive)
    assert np.array([venn_abers_pair(ours, place) for place in places.tolist()]) == pytest.approx(reference)


ORDERS = {
    "random": lambda size: np.random.default_rng(0).random(size) < np.linspace(0, 1, size),
    "rare": lambda size: np.random.default_rng(0).random(size) < 0.02,
    "separated": lambda size: np.arange(size) >= size // 2,
    "backwards": lambda size: np.arange(size) < size // 2,
    "alternating": lambda size: np.arange(size) % 2 == 0,
    "ever rarer": lambda size: np.isin(np.arange(size), np.cumsum(np.arange(1, size))),
    "ever more": lambda size: ~np.isin(np.arange(size), np.cumsum(np.arange(1, size))),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("knots", [isotonic_knots, venn_abers_knots])
def test_time_grows_with_the_number_of_cases_and_not_with_its_square(knots, order):
    def seconds(size):
        positive, logits = ORDERS[order](size), np.arange(float(size))
        times = []
        for _ in range(3):
            start = time.process_time()
            knots(logits, positive)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(32_000) < 40 * max(seconds(2_000), 1e-3)  # 16 times as many; the square is 256 times


@given(tied_cases.filter(lambda cases: len({y for _, y in cases}) == 2))
def test_a_flat_regression_means_an_auroc_of_a_half_at_most(cases):
    # What ``calibrators`` builds its refusal on.
    _, scores = isotonic_knots(*arrays(cases))
    pairs = [(a, b) for a, yes in cases for b, no in cases if yes and not no]
    won = sum((a > b) + (a == b) / 2 for a, b in pairs)
    assert scores[0] < scores[-1] or won <= len(pairs) / 2

"""Calibrators: the formulas to their last digits, an order that rounding cannot break, numbers that keep.

The references are rational numbers, decimals of fifty digits and work by hand: no numpy, as on a server.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lesion_triage.bundle.calibration import (
    BetaCalibrator,
    Calibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    TemperatureCalibrator,
    VennAbersCalibrator,
    calibrated_score,
    venn_abers_pair,
)
from lesion_triage.errors import ScoringError

DECIMALS = Context(prec=50, Emin=-(10**6), Emax=10**6)
ANY = TypeAdapter(Calibrator)

any_logit = st.floats(allow_nan=False, allow_infinity=False)
usual_logit = st.floats(-40, 40)
shares = st.floats(0, 1)


def ascending(values, size):
    return st.lists(values, min_size=size, max_size=size).map(lambda drawn: tuple(sorted(drawn)))


@st.composite
def isotonic(draw, knots=any_logit):
    logits = tuple(sorted(draw(st.sets(knots, min_size=2, max_size=8))))
    scores = draw(ascending(shares, len(logits)).filter(lambda drawn: drawn[0] < drawn[-1]))
    return IsotonicCalibrator(logits=logits, scores=scores)


@st.composite
def venn_abers(draw, knots=any_logit):
    logits = tuple(sorted(draw(st.sets(knots, min_size=1, max_size=8))))
    one, other = (draw(ascending(st.floats(1e-6, 1 - 1e-6), len(logits))) for _ in range(2))
    return VennAbersCalibrator(logits=logits, p0=tuple(map(min, one, other)), p1=tuple(map(max, one, other)))


platt = st.builds(PlattCalibrator, slope=st.floats(1e-6, 1e6), intercept=st.floats(-1e6, 1e6))
temperature = st.builds(TemperatureCalibrator, temperature=st.floats(1e-6, 1e6))
beta = st.builds(BetaCalibrator, a=st.floats(1e-6, 1e6), b=st.floats(0, 1e6), c=st.floats(-50, 50))
mild_beta = st.builds(BetaCalibrator, a=st.floats(0, 3), b=st.floats(0.1, 3), c=st.floats(-5, 5))
calibrators = st.one_of(platt, temperature, beta, mild_beta, isotonic(), venn_abers())
of_each_kind = (
    PlattCalibrator(slope=1.3, intercept=-0.7),
    TemperatureCalibrator(temperature=1.7),
    BetaCalibrator(a=0.6, b=1.4, c=-0.3),
    IsotonicCalibrator(logits=(-2.0, -1.0, 0.1, 3.0), scores=(0.0, 1 / 3, 1 / 3, 0.9)),
    VennAbersCalibrator(logits=(-1.5, 0.1, 2.0), p0=(0.0, 1 / 7, 2 / 3), p1=(1 / 6, 0.5, 1.0)),
)
each_kind = pytest.mark.parametrize("calibrator", of_each_kind, ids=lambda calibrator: calibrator.kind)


def knots_of(calibrator):
    return getattr(calibrator, "logits", (0.0,))


def assert_rises_around(middle, calibrator, steps):
    below, above = [middle], [middle]
    for _ in range(steps):
        below.append(math.nextafter(below[-1], -math.inf))
        above.append(math.nextafter(above[-1], math.inf))
    scores = [
        calibrated_score(calibrator, number) for number in (*below[::-1], *above) if math.isfinite(number)
    ]
    assert all(low <= high for low, high in pairwise(scores))


@example(PlattCalibrator(slope=1, intercept=0), -0.1, math.nextafter(-0.1, 0))
@given(calibrators, any_logit, any_logit)
def test_score_never_falls_when_the_logit_rises(calibrator, one, other):
    low, high = sorted((one, other))
    assert 0.0 <= calibrated_score(calibrator, low) <= calibrated_score(calibrator, high) <= 1.0


# Where x + log1p(exp(-x)) of the C library of Linux steps back, far enough to be seen in the score.
@example(BetaCalibrator(a=0, b=64, c=-64), 0.287)
@example(BetaCalibrator(a=0, b=64, c=-64), 0.372)
@example(BetaCalibrator(a=64, b=0, c=64), -0.396)
# 0.31 + (0.92 - 0.31) is above 0.92.
@example(IsotonicCalibrator(logits=(-1, 1), scores=(0.31, 0.92)), 1.0)
@given(calibrators, usual_logit)
def test_score_never_falls_from_one_number_to_the_next(calibrator, logit):
    for middle in (logit, *knots_of(calibrator)):
        assert_rises_around(middle, calibrator, steps=8)


# A power of two inside the logarithm, 0, and 40.
@each_kind
@pytest.mark.parametrize("branch", [0.0, 40.0, -40.0, *(math.log(2.0**n - 1) for n in range(1, 50))])
def test_score_never_falls_where_a_formula_changes_its_branch(calibrator, branch):
    assert_rises_around(branch, calibrator, steps=40)


def sigmoid(margin: Decimal) -> Decimal:
    return DECIMALS.divide(1, DECIMALS.add(1, DECIMALS.exp(-margin)))


def softplus(logit: Decimal) -> Decimal:
    return DECIMALS.ln(DECIMALS.add(1, DECIMALS.exp(logit)))


@given(st.floats(-60, 60))
def test_platt_and_temperature_are_the_logistic_function_of_a_line(logit):
    exact = sigmoid(Decimal(logit))
    for calibrator in (PlattCalibrator(slope=1, intercept=0), TemperatureCalibrator(temperature=1)):
        assert Decimal(calibrated_score(calibrator, logit)) == pytest.approx(exact, rel=Decimal("1e-12"))
    stretched = Decimal(3) / 2 * Decimal(logit) - Decimal(1) / 4
    score = calibrated_score(PlattCalibrator(slope=1.5, intercept=-0.25), logit)
    assert Decimal(score) == pytest.approx(sigmoid(stretched), rel=Decimal("1e-12"))
    assert calibrated_score(TemperatureCalibrator(temperature=0.5), logit) == calibrated_score(
        PlattCalibrator(slope=2, intercept=0), logit
    )


@given(st.floats(-60, 60))
def test_the_error_is_within_eight_last_places_for_each_unit_of_the_logit(logit):
    score = calibrated_score(PlattCalibrator(slope=1, intercept=0), logit)
    units = abs(Decimal(score) - sigmoid(Decimal(logit))) / Decimal(math.ulp(score))
    assert units <= 8 * (1 + abs(logit))


@given(st.floats(-300, 300), st.floats(0, 4), st.floats(0.01, 4), st.floats(-5, 5))
def test_beta_is_the_formula_of_kull_silva_filho_and_flach(logit, a, b, c):
    # p**a / ((1 - p)**b / e**c + p**a), on the scale of logarithms.
    ln_p, ln_1_p = -softplus(Decimal(-logit)), -softplus(Decimal(logit))
    exact = sigmoid(Decimal(a) * ln_p - Decimal(b) * ln_1_p + Decimal(c))
    score = calibrated_score(BetaCalibrator(a=a, b=b, c=c), logit)
    assert Decimal(score) == pytest.approx(exact, rel=Decimal("1e-11"), abs=Decimal("1e-40"))


@given(st.floats(1e-3, 1e3), st.floats(-50, 50), usual_logit)
def test_beta_with_equal_slopes_is_platt(slope, intercept, logit):
    one = calibrated_score(BetaCalibrator(a=slope, b=slope, c=intercept), logit)
    other = calibrated_score(PlattCalibrator(slope=slope, intercept=intercept), logit)
    assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


@given(any_logit)
def test_turning_the_logit_turns_the_score(logit):
    calibrator = TemperatureCalibrator(temperature=1)
    high, low = calibrated_score(calibrator, abs(logit)), calibrated_score(calibrator, -abs(logit))
    assert high == 1 - low


@each_kind
@pytest.mark.parametrize("logit", [800.0, 1e5, 1e300, 1.7e308])
def test_logits_beyond_the_exponential_have_a_score(calibrator, logit):
    low, high = calibrated_score(calibrator, -logit), calibrated_score(calibrator, logit)
    assert 0 <= low < high <= 1
    if calibrator.kind in {"platt", "temperature", "beta"}:
        assert (low, high) == pytest.approx((0, 1), abs=1e-200)


@given(isotonic(usual_logit), st.floats(0, 1))
def test_isotonic_draws_straight_lines_between_its_knots(calibrator, share):
    points = list(zip(calibrator.logits, calibrator.scores, strict=True))
    assert [calibrated_score(calibrator, logit) for logit in calibrator.logits] == list(calibrator.scores)
    for (left, low), (right, high) in pairwise(points):
        logit = min(max(left + share * (right - left), left), right)
        along = (Fraction(logit) - Fraction(left)) / (Fraction(right) - Fraction(left))
        exact = Fraction(low) + (Fraction(high) - Fraction(low)) * along
        assert low <= calibrated_score(calibrator, logit) <= high
        assert calibrated_score(calibrator, logit) == pytest.approx(float(exact), abs=1e-15)


@given(isotonic(), any_logit)
def test_isotonic_is_constant_beyond_its_knots(calibrator, logit):
    first, last = calibrator.logits[0], calibrator.logits[-1]
    assert calibrated_score(calibrator, min(logit, first)) == calibrator.scores[0]
    assert calibrated_score(calibrator, max(logit, last)) == calibrator.scores[-1]


def test_knots_further_apart_than_a_number_can_say_still_give_a_line():
    calibrator = IsotonicCalibrator(logits=(-1.7e308, 1.7e308), scores=(0.2, 0.6))
    assert calibrated_score(calibrator, 0.0) == pytest.approx(0.4)


# Fitted on two cases, a negative at 0 and a positive at 1. By hand: an added negative is pooled with the
# positive from 1 on, an added positive with the negative up to 0, and else nothing is pooled.
@pytest.mark.parametrize(
    ("logit", "p0", "p1", "score"),
    [
        (-1.0, 0, 1 / 2, 1 / 3),
        (0.0, 0, 1 / 2, 1 / 3),
        (0.5, 0, 1, 1 / 2),
        (1.0, 1 / 2, 1, 2 / 3),
        (2.0, 1 / 2, 1, 2 / 3),
    ],
)
def test_venn_abers_is_what_isotonic_regression_says_of_an_added_case(logit, p0, p1, score):
    calibrator = VennAbersCalibrator(logits=(0.0, 1.0), p0=(0, 0.5), p1=(0.5, 1))
    assert venn_abers_pair(calibrator, logit) == (p0, p1)
    assert calibrated_score(calibrator, logit) == pytest.approx(score)


@given(venn_abers(), any_logit)
def test_venn_abers_score_merges_the_two_probabilities(calibrator, logit):
    p0, p1 = map(Fraction, venn_abers_pair(calibrator, logit))
    merged = p1 / (1 - p0 + p1)
    assert p0 <= merged <= p1
    assert calibrated_score(calibrator, logit) == pytest.approx(float(merged), rel=1e-15)


@each_kind
@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_raises(calibrator, logit):
    with pytest.raises(ScoringError, match="expected a finite number"):
        calibrated_score(calibrator, logit)


@given(calibrators, any_logit)
def test_a_calibrator_read_back_from_its_file_gives_the_same_bits(calibrator, logit):
    again = ANY.validate_json(calibrator.to_json())
    assert type(again) is type(calibrator)
    assert again.to_json() == calibrator.to_json()
    assert calibrated_score(again, logit).hex() == calibrated_score(calibrator, logit).hex()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"kind": "spline", "knots": []}, "'platt', 'temperature', 'beta', 'isotonic', 'venn_abers'"),
        ({"slope": 1, "intercept": 0}, "discriminator 'kind'"),
        ({"kind": "platt", "slope": 0, "intercept": 0}, "greater than 0"),
        ({"kind": "platt", "temperature": 1}, "slope"),
        ({"kind": "temperature", "temperature": 0}, "greater than 0"),
        ({"kind": "temperature", "temperature": math.inf}, "finite"),
        ({"kind": "beta", "a": -1e-9, "b": 1, "c": 0}, "greater than or equal to 0"),
        ({"kind": "beta", "a": 0, "b": 0, "c": 0}, "a and b are both 0"),
        ({"kind": "isotonic", "logits": [0], "scores": [0.5]}, "at least 2 items"),
        ({"kind": "isotonic", "logits": [0, 1], "scores": [0.5]}, "one number per knot, found 1 for 2"),
        ({"kind": "isotonic", "logits": [0, 0], "scores": [0, 1]}, "logits must increase strictly"),
        ({"kind": "isotonic", "logits": [0, 1, 2], "scores": [0, 1, 0.5]}, "scores must never decrease"),
        ({"kind": "isotonic", "logits": [0, 1], "scores": [0, 1.1]}, "less than or equal to 1"),
        ({"kind": "isotonic", "logits": [0, 1], "scores": [0.5, 0.5]}, "scores must rise"),
        ({"kind": "isotonic", "logits": [0, math.nan], "scores": [0, 1]}, "finite"),
        ({"kind": "venn_abers", "logits": [], "p0": [], "p1": []}, "at least 1 item"),
        ({"kind": "venn_abers", "logits": [0], "p0": [0.5], "p1": [0.4]}, "p0 must not exceed p1"),
        ({"kind": "venn_abers", "logits": [0], "p0": [0], "p1": [0]}, "greater than 0"),
        ({"kind": "venn_abers", "logits": [0], "p0": [1], "p1": [1]}, "less than 1"),
        ({"kind": "venn_abers", "logits": [0, 1], "p0": [0, 0.1], "p1": [1]}, "p1 must have one number per"),
        ({"kind": "venn_abers", "logits": [0, 1], "p0": [0.2, 0.1], "p1": [1, 1]}, "p0 must never decrease"),
        ({"kind": "venn_abers", "logits": [1, 0], "p0": [0, 0.1], "p1": [1, 1]}, "logits must increase"),
    ],
)
def test_numbers_that_are_no_calibrator_are_refused(document, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ANY.validate_python(document)

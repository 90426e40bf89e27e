"""Calibrators as plain numbers, and the one function that evaluates them.

Imports the standard library, pydantic, the document and the exception tree.

A score never decreases when its logit rises, to the last bit. This is proved, not only tested: every step
below is a sum, difference, product or quotient that rises, or falls, with the logit; IEEE 754 rounds each of
them correctly, and rounding preserves order. The C library's ``exp`` and ``log1p`` guarantee no order and
differ between machines in the last bit, and ``x + log1p(exp(-x))`` does step back, so they are not used here.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from lesion_triage.bundle.document import Document, Fraction
from lesion_triage.errors import ScoringError

_EXP_DOUBLINGS = 10
_EXP_TERMS = tuple(1 / math.factorial(power) for power in range(10, 0, -1))
_ATANH_TERMS = tuple(1 / power for power in range(33, 0, -2))
_LN_2 = 0.6931471805599453
_SOFTPLUS_LINEAR_FROM = 40.0  # from here on ln(1 + e**x) equals x to the last bit


class PlattCalibrator(Document):
    """``score = sigmoid(slope * logit + intercept)`` (Platt 1999)."""

    kind: Literal["platt"] = "platt"
    slope: Annotated[FiniteFloat, Field(gt=0)]
    intercept: FiniteFloat


class TemperatureCalibrator(Document):
    """``score = sigmoid(logit / temperature)`` (Guo et al. 2017, ICML)."""

    kind: Literal["temperature"] = "temperature"
    temperature: Annotated[FiniteFloat, Field(gt=0)]
    """Above 1 it draws the scores towards 0.5."""


class BetaCalibrator(Document):
    """``score = sigmoid(a * ln p - b * ln(1 - p) + c)`` with ``p = sigmoid(logit)``.

    Kull, Silva Filho & Flach 2017, AISTATS, "Beta calibration". With ``a = b`` it is Platt's calibrator;
    otherwise the two ends of the curve are bent differently.
    """

    kind: Literal["beta"] = "beta"
    a: Annotated[FiniteFloat, Field(ge=0)]
    b: Annotated[FiniteFloat, Field(ge=0)]
    c: FiniteFloat

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.a == self.b == 0:
            raise ValueError("a and b are both 0, expected at least one above: every score would be the same")
        return self


class IsotonicCalibrator(Document):
    """Linear interpolation between knots, constant outside them (Zadrozny & Elkan 2002, KDD)."""

    kind: Literal["isotonic"] = "isotonic"
    logits: tuple[FiniteFloat, ...] = Field(min_length=2)
    """Positions of the knots, strictly increasing."""
    scores: tuple[Fraction, ...]
    """The score at each knot, never decreasing; the last is above the first."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        _check_knots(self.logits, {"scores": self.scores})
        if self.scores[0] == self.scores[-1]:
            raise ValueError(f"scores must rise from first to last, found {self.scores[0]} throughout")
        return self


class VennAbersCalibrator(Document):
    """An inductive Venn-Abers predictor: ``score = p1 / (1 - p0 + p1)``.

    Vovk, Petej & Fedorova 2015, NeurIPS, "Large-scale probabilistic predictors with and without guarantees
    of validity". ``p0`` and ``p1`` are the isotonic fits at the case itself after adding it to the fitting
    data, once as a negative and once as a positive. Between two knots both are constant. An added negative is
    pooled with the cases below it, an added positive with those above. So ``p0`` takes a knot's value from
    that knot on and is 0 below the first; ``p1`` takes it up to that knot and is 1 above the last.
    """

    kind: Literal["venn_abers"] = "venn_abers"
    logits: tuple[FiniteFloat, ...] = Field(min_length=1)
    """Positions of the knots, strictly increasing."""
    p0: tuple[Annotated[FiniteFloat, Field(ge=0, lt=1)], ...]
    """Value from this knot on, below the next; never decreasing."""
    p1: tuple[Annotated[FiniteFloat, Field(gt=0, le=1)], ...]
    """Value above the previous knot, up to and including this one; never decreasing."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_knots(self.logits, {"p0": self.p0, "p1": self.p1})
        for low, high in zip(self.p0, self.p1, strict=True):
            if low > high:
                raise ValueError(f"p0 must not exceed p1, found {low} and {high} at one knot")
        return self


Calibrator = Annotated[
    PlattCalibrator | TemperatureCalibrator | BetaCalibrator | IsotonicCalibrator | VennAbersCalibrator,
    Field(discriminator="kind"),
]


def calibrated_score(calibrator: Calibrator, logit: float) -> float:
    """Calibrated probability in [0, 1] that an in-person visit is needed, in float64.

    Never decreases when the logit rises, to the last bit, and is the same bits on every machine.

    Raises:
        ScoringError: the logit is not finite. ``nan >= threshold`` is False and would read as "below".
    """
    if not math.isfinite(logit):
        raise ScoringError(
            f"The logit is {logit}, expected a finite number; the model or its input is broken."
        )
    match calibrator:
        case PlattCalibrator():
            return _sigmoid(calibrator.slope * logit + calibrator.intercept)
        case TemperatureCalibrator():
            return _sigmoid(logit / calibrator.temperature)
        case BetaCalibrator():
            ln_p, minus_ln_1_p = -_softplus(-logit), _softplus(logit)
            return _sigmoid(calibrator.a * ln_p + calibrator.b * minus_ln_1_p + calibrator.c)
        case IsotonicCalibrator():
            return _isotonic_score(calibrator, logit)
        case VennAbersCalibrator():
            p0, p1 = venn_abers_pair(calibrator, logit)
            return 1.0 / (1.0 + (1.0 - p0) / p1)  # p1 / (1 - p0 + p1), each occurring once


def venn_abers_pair(calibrator: VennAbersCalibrator, logit: float) -> tuple[float, float]:
    """``(p0, p1)`` at a finite logit."""
    at_or_below = bisect_right(calibrator.logits, logit)
    below = bisect_left(calibrator.logits, logit)
    p0 = calibrator.p0[at_or_below - 1] if at_or_below else 0.0
    p1 = calibrator.p1[below] if below < len(calibrator.logits) else 1.0
    return p0, p1


def _check_knots(logits: tuple[float, ...], columns: dict[str, tuple[float, ...]]) -> None:
    for name, values in columns.items():
        if len(values) != len(logits):
            raise ValueError(f"{name} must have one number per knot, found {len(values)} for {len(logits)}")
        if any(low > high for low, high in pairwise(values)):
            raise ValueError(f"{name} must never decrease")
    if any(low >= high for low, high in pairwise(logits)):
        raise ValueError("logits must increase strictly from knot to knot")


def _isotonic_score(calibrator: IsotonicCalibrator, logit: float) -> float:
    """Score on the line between the two knots that enclose the logit."""
    above = bisect_right(calibrator.logits, logit)
    if above == 0:
        return calibrator.scores[0]
    left, low = calibrator.logits[above - 1], calibrator.scores[above - 1]
    if logit == left or above == len(calibrator.logits):
        return low
    right, high = calibrator.logits[above], calibrator.scores[above]
    # (logit - left) / (right - left), in a form that cannot become inf / inf.
    weight = 1.0 / (1.0 + (right - logit) / (logit - left))
    return min(low + (high - low) * weight, high)


def _sigmoid(x: float) -> float:
    """``1 / (1 + e**-x)``; infinite ``x`` gives 0 or 1."""
    return 1.0 - 1.0 / (2.0 + _expm1(x)) if x >= 0 else 1.0 / (2.0 + _expm1(-x))


def _softplus(x: float) -> float:
    """``ln(1 + e**x)``. For a logit it is ``-ln(1 - p)``, for the negated logit ``-ln p``."""
    if x > _SOFTPLUS_LINEAR_FROM:
        return x
    one_plus_exp = 2.0 + _expm1(x) if x >= 0 else 1.0 + 1.0 / (1.0 + _expm1(-x))
    return min(_log(one_plus_exp), _SOFTPLUS_LINEAR_FROM)


def _expm1(x: float) -> float:
    """``e**x - 1`` for ``x >= 0``, from sums and products of non-negative numbers.

    Taylor polynomial at ``x / 1024``, then ten times ``(1 + y)**2 - 1 = y * (y + 2)``. Up to x = 100 the
    relative error is a few ulps times ``1 + x``; overflow gives inf.
    """
    small = x / 2.0**_EXP_DOUBLINGS
    power = 0.0
    for term in _EXP_TERMS:
        power = (power + term) * small
    for _ in range(_EXP_DOUBLINGS):
        power *= power + 2.0
    return power


def _log(x: float) -> float:
    """``ln x`` for finite ``x >= 1``, to a few ulps of 1: ``ln 2`` per doubling, and the series of atanh."""
    mantissa, exponent = math.frexp(x)
    u = 1.0 - 2.0 / (2.0 * mantissa + 1.0)  # (m - 1) / (m + 1) for m = x / 2**(exponent - 1), below 1/3
    square, series = u * u, 0.0
    for term in _ATANH_TERMS:
        series = series * square + term
    # The last value of one doubling must not exceed the first of the next.
    return min((exponent - 1) * _LN_2 + 2.0 * u * series, exponent * _LN_2)

"""From a logit to a probability: five calibrators behind one interface, and the choice between them.

Imports numpy, ``bundle.calibration``, ``isotonic``, ``logistic`` and the exception tree.

Three are fitted by maximum likelihood: Platt, temperature and beta. They use Platt's smoothed targets,
(N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0 (Platt 1999), so that a fit exists even if the
classes are separated. Two assume only monotonicity: isotonic regression and the inductive Venn-Abers
predictor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.calibration import (
    BetaCalibrator,
    Calibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    TemperatureCalibrator,
    VennAbersCalibrator,
    calibrated_score,
)
from lesion_triage.calibrate.isotonic import isotonic_knots, venn_abers_knots
from lesion_triage.calibrate.logistic import logistic_regression, univariate_logistic_regressions
from lesion_triage.errors import CalibrationError

__all__ = [
    "KINDS",
    "Kind",
    "choose",
    "cross_fitted",
    "fit",
    "fit_beta",
    "fit_isotonic",
    "fit_platt",
    "fit_temperature",
    "fit_venn_abers",
    "univariate_logistic_regressions",
]

Kind = Literal["platt", "beta", "temperature", "isotonic", "venn_abers"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CLIP = 1e-12  # a score of exactly 0 or 1 would make one case worth infinite log loss
_TRAINING_HINT = "check how the network was trained before you certify it."


def fit(kind: Kind, logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]) -> Calibrator:
    """Fit one kind of calibrator.

    Args:
        kind: of calibrator.
        logits: one per case, shape (n,), finite.
        needs_in_person: the reference standard, shape (n,).

    Raises:
        CalibrationError: shapes that differ, a logit that is not finite, one class only, logits all equal, or
            logits that rank the cases backwards, so that the scores would not rise.
    """
    return _FITTERS[kind](logits, needs_in_person)


def cross_fitted(
    kind: Kind,
    logits: NDArray[np.float64],
    needs_in_person: NDArray[np.bool_],
    units: Sequence[str],
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Score of every case by a calibrator that saw neither the case nor its unit.

    Units are assigned to the folds in turn: first those with a positive case, then the others, each in random
    order. So folds differ by at most one unit of either sort, and the order of the cases does not matter.

    Args:
        kind: of calibrator.
        logits: one per case, shape (n,), finite.
        needs_in_person: the reference standard, shape (n,).
        units: what stays together, such as the patient of every case.
        folds: at least 2.
        seed: of the assignment to folds.

    Returns:
        Scores, shape (n,).

    Raises:
        CalibrationError: as ``fit``, on all cases or on those outside some fold; fewer than 2 folds.
    """
    x, positive = _checked_inputs(logits, needs_in_person)
    return _out_of_fold(kind, x, positive, _assign_folds(positive, units, folds, seed))


def choose(
    logits: NDArray[np.float64],
    needs_in_person: NDArray[np.bool_],
    units: Sequence[str],
    kinds: Sequence[Kind] = KINDS,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Kind, dict[Kind, float]]:
    """The kind with the lowest cross-fitted log loss; a tie goes to the one listed first in ``kinds``.

    Args:
        logits: one per case, shape (n,), finite.
        needs_in_person: the reference standard, shape (n,).
        units: what stays together in ``cross_fitted``.
        kinds: which to compare, at least one.
        folds: at least 2; the same folds for every kind.
        seed: of the assignment to folds.

    Returns:
        The kind, and the mean log loss of every kind in nats, with scores clipped to 1e-12 from 0 and 1; NaN
        for a kind that could not be fitted in some fold.

    Raises:
        CalibrationError: input that no kind can take, or no kind that could be fitted in every fold.
    """
    x, positive = _checked_inputs(logits, needs_in_person)
    fold_of = _assign_folds(positive, units, folds, seed)
    losses: dict[Kind, float] = {}
    refusal = "none was asked for"
    for kind in kinds:
        try:
            losses[kind] = _log_loss(_out_of_fold(kind, x, positive, fold_of), positive)
        except CalibrationError as error:
            losses[kind], refusal = np.nan, str(error)
    fitted = [kind for kind in losses if np.isfinite(losses[kind])]
    if not fitted:
        raise CalibrationError(
            f"none of {', '.join(kinds) or 'no kinds'} can be fitted outside each of {folds} folds of "
            f"{positive.size} cases; the last error: {refusal}"
        )
    return min(fitted, key=losses.__getitem__), losses


def fit_platt(logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]) -> PlattCalibrator:
    """Maximum likelihood of ``sigmoid(slope * logit + intercept)``; arguments and errors as ``fit``."""
    x, positive = _checked_inputs(logits, needs_in_person)
    line = univariate_logistic_regressions(x, _platt_targets(positive), np.ones((1, x.size)))[0]
    slope, intercept = float(line[0]), float(line[1])
    if not (np.isfinite(line).all() and slope > 0):
        raise CalibrationError(
            f"the calibrator's slope is {slope:.4g} on {x.size} validation cases, expected more than 0: the "
            f"logits do not rank positive cases above the others; {_TRAINING_HINT}"
        )
    return PlattCalibrator(slope=slope, intercept=intercept)


def fit_temperature(logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]) -> TemperatureCalibrator:
    """Maximum likelihood of ``sigmoid(logit / temperature)``; arguments and errors as ``fit``.

    The unknown is 1 / temperature, in which the log likelihood is concave (Guo et al. 2017, ICML).
    """
    x, positive = _checked_inputs(logits, needs_in_person)
    _require_positive_ranking(x, positive)
    coefficients, _ = logistic_regression(x[None, :], _platt_targets(positive))
    inverse = float(coefficients[0])
    temperature = 1 / inverse if inverse > 0 else 0.0
    if not 0 < temperature < math.inf:
        raise CalibrationError(
            f"the inverse temperature is {inverse:.4g} on {x.size} validation cases, expected more than 0: "
            "a temperature moves no logit across 0, and the classes do not separate there; choose a "
            "calibrator with an intercept, such as 'platt'."
        )
    return TemperatureCalibrator(temperature=temperature)


def fit_beta(logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]) -> BetaCalibrator:
    """Maximum likelihood of ``sigmoid(a * ln p - b * ln(1 - p) + c)`` with a, b >= 0 and p = sigmoid(logit).

    A logistic regression on ``ln p`` and ``-ln(1 - p)``. If it gives a negative a or b, one of them is set to
    0 and the other refitted (Kull, Silva Filho & Flach 2017). The log likelihood is concave, so the best fit
    that satisfies the signs is the constrained maximum. Arguments and errors as ``fit``.
    """
    x, positive = _checked_inputs(logits, needs_in_person)
    _require_positive_ranking(x, positive)
    columns = np.stack([-np.logaddexp(0, -x), np.logaddexp(0, x), np.ones_like(x)])
    fits = []
    for used in ([0, 1, 2], [0, 2], [1, 2]):
        fitted = np.zeros(3)
        fitted[used], loss = logistic_regression(columns[used], _platt_targets(positive))
        if fitted[:2].min() >= 0 and fitted[:2].max() > 0:
            fits.append((loss, fitted.tolist()))
    if not fits:
        raise CalibrationError(
            f"no a or b above 0 fits the beta calibrator to {x.size} validation cases, expected one: with "
            f"logits from {x.min():.4g} to {x.max():.4g}, neither ln p nor -ln(1 - p) is higher in positive "
            "cases; choose a calibrator of the logit itself, such as 'platt'."
        )
    a, b, c = min(fits)[1]
    return BetaCalibrator(a=a, b=b, c=c)


def fit_isotonic(logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]) -> IsotonicCalibrator:
    """Isotonic regression by pooling adjacent violators; arguments and errors as ``fit``.

    Its scores reach 0 and 1 if the outermost cases agree: it is overconfident in small samples.
    """
    x, positive = _checked_inputs(logits, needs_in_person)
    _require_positive_ranking(x, positive)
    knots, scores = isotonic_knots(x, positive)
    return IsotonicCalibrator(logits=tuple(knots.tolist()), scores=tuple(scores.tolist()))


def fit_venn_abers(logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]) -> VennAbersCalibrator:
    """The inductive Venn-Abers predictor; arguments and errors as ``fit``.

    One of its two probabilities is calibrated, at any sample size, if the cases are exchangeable (Vovk, Petej
    & Fedorova 2015). The score merges the two, and is never 0 or 1.
    """
    x, positive = _checked_inputs(logits, needs_in_person)
    _require_positive_ranking(x, positive)
    knots, p0, p1 = venn_abers_knots(x, positive)
    return VennAbersCalibrator(logits=tuple(knots.tolist()), p0=tuple(p0.tolist()), p1=tuple(p1.tolist()))


_FITTERS: Mapping[Kind, Callable[[NDArray[np.float64], NDArray[np.bool_]], Calibrator]] = {
    "platt": fit_platt,
    "beta": fit_beta,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
    "venn_abers": fit_venn_abers,
}


def _checked_inputs(
    logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Logits and outcomes as arrays, checked for what every kind requires.

    Raises:
        CalibrationError: shapes that differ, a logit that is not finite, or one class only.
    """
    x = np.asarray(logits, dtype=np.float64)
    positive = np.asarray(needs_in_person, dtype=np.bool_)
    if x.shape != positive.shape or x.ndim != 1:
        raise CalibrationError(f"expected as many logits as outcomes, found {x.shape} and {positive.shape}.")
    if not np.isfinite(x).all():
        raise CalibrationError(
            f"{int((~np.isfinite(x)).sum())} of {x.size} logits are not finite; train again."
        )
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0:
        raise CalibrationError(
            f"a calibrator needs cases of both classes, found {positives} that need an in-person visit and "
            f"{negatives} that do not; enlarge split 'validation'."
        )
    return x, positive


def _require_positive_ranking(x: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
    """Refuse logits whose AUROC is a half or less.

    This includes every sample whose isotonic regression is flat: its ROC curve is nowhere above the diagonal.
    """
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    pairs_won = float(ranks[positive].sum()) - positives * (positives + 1) / 2
    if 2 * pairs_won <= positives * negatives:
        raise CalibrationError(
            f"the AUROC of the logits is {pairs_won / (positives * negatives):.4g} on {x.size} validation "
            f"cases, expected more than 0.5: the logits do not rank positive cases above the others; "
            f"{_TRAINING_HINT}"
        )


def _platt_targets(positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _assign_folds(
    positive: NDArray[np.bool_], units: Sequence[str], folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of every case, shape (n,)."""
    if len(units) != positive.size or folds < 2:
        raise CalibrationError(
            f"expected one unit per case and at least 2 folds, found {len(units)} units, {positive.size} "
            f"cases and {folds} folds."
        )
    names, unit_of = np.unique(np.asarray(units, dtype=np.str_), return_inverse=True)
    has_positive = np.bincount(unit_of[positive], minlength=names.size) > 0
    shuffled = np.random.default_rng(seed).permutation(names.size)
    fold_of = np.empty(names.size, dtype=np.int64)
    fold_of[shuffled[np.argsort(~has_positive[shuffled], kind="stable")]] = np.arange(names.size) % folds
    return fold_of[unit_of]


def _out_of_fold(
    kind: Kind, x: NDArray[np.float64], positive: NDArray[np.bool_], fold_of: NDArray[np.int64]
) -> NDArray[np.float64]:
    scores = np.full(x.size, np.nan)
    for fold in np.unique(fold_of):
        left_out = fold_of == fold
        calibrator = fit(kind, x[~left_out], positive[~left_out])
        scores[left_out] = [calibrated_score(calibrator, logit) for logit in x[left_out].tolist()]
    return scores


def _log_loss(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    return float(-np.where(positive, np.log(clipped), np.log1p(-clipped)).mean())

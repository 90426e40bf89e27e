"""Two policies on the same cases: how far apart, and is it chance? Imports numpy and this room."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.bootstrap import Estimate, bootstrap
from lesion_triage.calibrate.cells import Cells, Counts, Floats, Sample
from lesion_triage.calibrate.metrics import auroc, auroc_difference
from lesion_triage.calibrate.shares import share_of
from lesion_triage.errors import CalibrationError

_NEITHER, _FIRST, _SECOND, _BOTH = 0.0, 0.25, 0.5, 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What one policy said of every case; arrays of shape (cases,)."""

    scores: Floats
    """+inf for a case without a score."""
    referred: NDArray[np.bool_]
    """Referred or abstained on."""


@dataclass(frozen=True, slots=True)
class Discordant:
    """Cases of one class that one policy refers and the other does not."""

    cases: int
    """Of the class."""
    first_only: int
    second_only: int
    p_value: float | None
    """McNemar's test, exact and two-sided; None where cases are not independent of one another."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A number under both policies, and second minus first with its paired interval."""

    name: str
    first: float
    second: float
    difference: Estimate | None


@dataclass(frozen=True, slots=True)
class Compared:
    """Everything that is measured of a pair."""

    differences: tuple[Difference, ...]
    """``auroc`` over the cases that both gave a score, if some have one; then ``sensitivity``,
    ``specificity`` and ``referral_rate`` over all."""
    scored_by_both: int
    positives: Discordant
    negatives: Discordant


def compare(
    first: Said,
    second: Said,
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None = None,
    *,
    same: bool = False,
) -> Compared:
    """Compare two policies case by case.

    Args:
        first: one policy.
        second: the other, on the same cases in the same order.
        positive: the reference standard, shape (cases,).
        draws: of the bootstrap, which draws a case with what both said of it.
        seed: of the bootstrap.
        units: what is drawn, as for ``metrics.summarise``.
        same: both are one policy, so that they do not differ on any case whatever. Two policies that agree on
            these cases may differ on the next.

    Raises:
        CalibrationError: shapes that differ, or no case.
    """
    shapes = {array.shape for side in (first, second) for array in (side.scores, side.referred)}
    if shapes != {positive.shape} or not positive.size:
        raise CalibrationError("a paired comparison takes what both policies said of the same cases.")
    rates = _rates(first.referred, second.referred, positive, draws, seed, units)
    if not same:
        rates = _with_width(rates, positive, units)
    both = np.isfinite(first.scores) & np.isfinite(second.scores)
    ranked = _auroc(first.scores[both], second.scores[both], positive[both], draws, seed, _of(units, both))
    return Compared(
        differences=(*ranked, *rates),
        scored_by_both=int(both.sum()),
        positives=_discordant(first.referred[positive], second.referred[positive], units),
        negatives=_discordant(first.referred[~positive], second.referred[~positive], units),
    )


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided exact p-value that as many cases change one way as the other (McNemar 1947).

    Twice the smaller tail of a binomial law with one half, at most 1; 1 where nothing changes.
    """
    total, fewer = first_only + second_only, min(first_only, second_only)
    if not total:
        return 1.0
    ranks = np.arange(1, fewer + 1)
    log_choose = np.append(0.0, np.cumsum(np.log((total - ranks + 1) / ranks)))
    largest = float(log_choose.max())
    tail = largest + math.log(float(np.exp(log_choose - largest).sum())) - total * math.log(2)
    return min(1.0, 2 * math.exp(tail))


def _auroc(
    first: Floats,
    second: Floats,
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None,
) -> list[Difference]:
    if not positive.any() or positive.all():
        return []
    values = []
    for scores in (first, second):
        cells = Cells.exact(Sample.of(scores, positive))
        values.append(float(auroc(cells, cells.once())[0]))
    found = auroc_difference(second, first, positive, draws, seed, units)
    return [Difference("auroc", values[0], values[1], found)]


def _rates(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None,
) -> list[Difference]:
    """Both policies together have four answers; each is a cell, so a million cases cost what a hundred do."""
    answers = np.select([first & second, first, second], [_BOTH, _FIRST, _SECOND], _NEITHER)

    def measure(cells: Cells, counts: Counts) -> Floats:
        columns = []
        for referred in (np.isin(cells.lowest, [_FIRST, _BOTH]), np.isin(cells.lowest, [_SECOND, _BOTH])):
            classes = counts.sum(axis=2)
            up = counts @ referred
            with np.errstate(invalid="ignore"):
                columns += [
                    up[:, 1] / classes[:, 1],
                    1 - up[:, 0] / classes[:, 0],
                    up.sum(axis=1) / classes.sum(axis=1),
                ]
        ours, theirs = np.array(columns[:3]), np.array(columns[3:])
        return np.concatenate([ours, theirs, theirs - ours]).T

    estimates = bootstrap(Sample.of(answers, positive), measure, draws, seed, units)
    names = ("sensitivity", "specificity", "referral_rate")
    return [
        Difference(name, one.value, other.value, estimates[6 + number])
        for number, name in enumerate(names)
        if (one := estimates[number]) is not None and (other := estimates[3 + number]) is not None
    ]


def _with_width(
    rates: list[Difference], positive: NDArray[np.bool_], units: NDArray[np.intp] | None
) -> list[Difference]:
    """Where no case changed side, or all did, every draw has the same difference, and the next case may not.

    A rate moves by no more than the share of cases that fare otherwise, of which the exact bound is known.
    """
    members = np.arange(positive.size) if units is None else units
    of = {"sensitivity": positive, "specificity": ~positive, "referral_rate": np.ones_like(positive)}
    widened = []
    for one in rates:
        found = one.difference
        if found is not None and found.low == found.high:
            alike = share_of(np.ones(int(of[one.name].sum()), dtype=np.bool_), members[of[one.name]]).low
            middle, reach = found.value * alike, 1 - alike
            found = Estimate(found.value, middle - reach, middle + reach, draws=0)
        widened.append(replace(one, difference=found))
    return widened


def _discordant(
    first: NDArray[np.bool_], second: NDArray[np.bool_], units: NDArray[np.intp] | None
) -> Discordant:
    one, other = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    return Discordant(first.size, one, other, mcnemar(one, other) if units is None else None)


def _of(units: NDArray[np.intp] | None, members: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    return None if units is None else units[members]

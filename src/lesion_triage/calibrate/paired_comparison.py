"""Two policies on the same cases: differences, intervals and tests. Imports numpy and this package."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.binomial import log_cdf
from lesion_triage.calibrate.bootstrap import INTERVAL_CONFIDENCE, Estimate, bootstrap
from lesion_triage.calibrate.cells import Cells, Counts, Floats, Sample
from lesion_triage.calibrate.clustered_proportions import clustered_proportion, has_clusters
from lesion_triage.calibrate.metrics import auroc, auroc_difference, proportion_difference_interval
from lesion_triage.errors import CalibrationError

_NEITHER, _GAINED, _LOST = 0.0, 0.5, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class PolicyOutput:
    """The answers of one policy; arrays of shape (cases,)."""

    scores: Floats
    """+inf for a case without a score."""
    referred: NDArray[np.bool_]
    """Referred or abstained on."""


@dataclass(frozen=True, slots=True)
class DiscordantPairs:
    """Cases of one class that one policy refers and the other does not."""

    cases: int
    """Of the class."""
    first_only: int
    second_only: int
    p_value: float | None
    """McNemar's test, exact and two-sided; None if the cases are not independent of one another."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A number under both policies, and second minus first with its paired interval."""

    name: str
    first: float
    second: float
    difference: Estimate | None
    """Of the AUROC by ``auroc_difference``, of the others by ``rate_difference``; None: not estimable."""


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Everything that is measured of a pair."""

    differences: tuple[Difference, ...]
    """``auroc`` over the cases that both gave a score, if these are of both classes; then ``sensitivity``,
    ``specificity`` and ``referral_rate`` over all cases, each if it has any."""
    scored_by_both: int
    positives: DiscordantPairs
    negatives: DiscordantPairs


def compare(
    first: PolicyOutput,
    second: PolicyOutput,
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None = None,
    *,
    same_policy: bool = False,
) -> PairedComparison:
    """Compare two policies case by case.

    Args:
        first: one policy.
        second: the other, on the same cases in the same order.
        positive: the reference standard, shape (cases,).
        draws: of the bootstrap, which draws each case together with both answers.
        seed: of the bootstrap.
        units: the resampling unit of each case, as for ``metrics.summarise``.
        same_policy: both are one policy, so they can differ on no case, and the intervals of the rates
            have no width. Two policies that merely agree on these cases may differ on the next.

    Raises:
        CalibrationError: shapes that differ, or no case.
    """
    shapes = {array.shape for side in (first, second) for array in (side.scores, side.referred)}
    if shapes != {positive.shape} or not positive.size:
        raise CalibrationError("a paired comparison needs what both policies said of the same cases.")
    rates = _rate_differences(first.referred, second.referred, positive, draws, seed, units, same_policy)
    both = np.isfinite(first.scores) & np.isfinite(second.scores)
    ranked = _auroc_differences(
        first.scores[both], second.scores[both], positive[both], draws, seed, _select_units(units, both)
    )
    return PairedComparison(
        differences=(*ranked, *rates),
        scored_by_both=int(both.sum()),
        positives=_discordant_pairs(first.referred[positive], second.referred[positive], units),
        negatives=_discordant_pairs(first.referred[~positive], second.referred[~positive], units),
    )


def mcnemar_p_value(first_only: int, second_only: int) -> float:
    """Two-sided exact p-value of the hypothesis that changes either way are equally likely (McNemar 1947).

    Twice the smaller tail of a binomial with probability one half, at most 1; 1 if nothing changes.
    """
    total, fewer = first_only + second_only, min(first_only, second_only)
    if not total:
        return 1.0
    return min(1.0, 2 * math.exp(log_cdf(total, fewer, 0.5)))


def _auroc_differences(
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
        values.append(float(auroc(cells, cells.sample_counts())[0]))
    found = auroc_difference(second, first, positive, draws, seed, units)
    return [Difference("auroc", values[0], values[1], found)]


def _rate_differences(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None,
    same_policy: bool,
) -> list[Difference]:
    over = {
        "sensitivity": (first, second, positive),
        "specificity": (~first, ~second, ~positive),
        "referral_rate": (first, second, np.ones_like(positive)),
    }
    of = np.arange(positive.size) if units is None else units
    drawn: dict[str, Estimate | None] = {}
    if units is not None and not same_policy:
        drawn = dict(
            zip(over, _bootstrap_rate_differences(first, second, positive, draws, seed, units), strict=True)
        )
    found = []
    for name, (one, other, among) in over.items():
        if among.any():
            ours, theirs = one[among], other[among]
            moved = (
                Estimate(0.0, 0.0, 0.0, draws=0)
                if same_policy
                else rate_difference(theirs & ~ours, ours & ~theirs, of[among], drawn.get(name))
            )
            found.append(Difference(name, float(ours.mean()), float(theirs.mean()), moved))
    return found


def rate_difference(
    gained: NDArray[np.bool_],
    lost: NDArray[np.bool_],
    units: NDArray[np.intp],
    drawn: Estimate | None = None,
) -> Estimate:
    """Share of the cases gained minus share of those lost, with a two-sided 95 % interval that counts units.

    The intervals of both shares (``clustered_proportion``) are combined by
    ``proportion_difference_interval``. Percentiles of draws alone would not do: they never gain a case if
    none was gained, and exclude 0 from four lost cases on.

    If every case is a unit of its own, the interval includes 0 unless McNemar's exact test rejects at 5 %. On
    its own it would exclude 0 slightly before the test rejects, as at five cases to none.

    Args:
        gained: shape (cases,); at least one case.
        lost: shape (cases,); no case is both.
        units: what each case belongs to, shape (cases,).
        drawn: interval from resampling units; if units hold several cases, the result covers it too.
    """
    up, down = clustered_proportion(gained, units), clustered_proportion(lost, units)
    low, high = proportion_difference_interval(up, down)
    if has_clusters(units):
        if drawn is not None:
            low, high = min(low, drawn.low), max(high, drawn.high)
    elif mcnemar_p_value(down.successes, up.successes) >= 1 - INTERVAL_CONFIDENCE:
        low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(up.value - down.value, low, high, draws=0)


def _bootstrap_rate_differences(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    positive: NDArray[np.bool_],
    draws: int,
    seed: int,
    units: NDArray[np.intp],
) -> tuple[Estimate | None, ...]:
    """Second minus first in sensitivity, specificity and referral rate, from the same draws of units.

    A case moves up, down or not at all. Each of the three is a cell, so a million cases cost as much as a
    hundred.
    """
    moves = np.select([second & ~first, first & ~second], [_GAINED, _LOST], _NEITHER)

    def measure(cells: Cells, counts: Counts) -> Floats:
        classes = counts.sum(axis=2)
        moved = counts @ ((cells.lowest_score == _GAINED) * 1.0 - (cells.lowest_score == _LOST) * 1.0)
        with np.errstate(invalid="ignore"):
            return np.column_stack(
                [
                    moved[:, 1] / classes[:, 1],
                    -moved[:, 0] / classes[:, 0],
                    moved.sum(axis=1) / classes.sum(axis=1),
                ]
            )

    return bootstrap(Sample.of(moves, positive), measure, draws, seed, units)


def _discordant_pairs(
    first: NDArray[np.bool_], second: NDArray[np.bool_], units: NDArray[np.intp] | None
) -> DiscordantPairs:
    one, other = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    return DiscordantPairs(first.size, one, other, mcnemar_p_value(one, other) if units is None else None)


def _select_units(units: NDArray[np.intp] | None, members: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    return None if units is None else units[members]

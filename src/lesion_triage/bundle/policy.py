"""From logits to a disposition: the one function by which calibration, evaluation and the server decide.

Imports the standard library, the schema, the calibrators and the exception tree.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lesion_triage.bundle.calibration import score_of
from lesion_triage.bundle.schema import NO_HISTORY, Disposition, History, Policy, ReasonCode
from lesion_triage.errors import ScoringError

Band = Literal[1, 2, 3, 4]
UNKNOWN = "unknown"
"""The group of a case whose history does not say."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says of one case."""

    disposition: Disposition
    priority_band: Band
    """1 is read first, 4 last."""
    score: float | None
    """In [0, 1]; None if and only if no photograph was gradable."""
    threshold: float
    """What the score was compared with."""
    reasons: tuple[ReasonCode, ...]


def case_logit(logits: Sequence[float], aggregation: Literal["max", "mean"]) -> float:
    """The case's logit from those of its gradable photographs.

    Raises:
        ScoringError: there is none, or one is not finite.
    """
    if not logits:
        raise ScoringError("No gradable photograph, expected at least one; nothing can be aggregated.")
    for position, logit in enumerate(logits, start=1):
        if not math.isfinite(logit):
            raise ScoringError(
                f"Photograph {position}: the logit is {logit}, expected a finite number; "
                "the model or its input is broken."
            )
    if aggregation == "max":
        return max(logits)
    # In rational numbers, rounded once: order does not matter, equal logits keep theirs, nothing overflows.
    return statistics.mean(logits)


def band_of(policy: Policy, score: float) -> Band:
    """Priority band of a score: 1 is read first, 4 last.

    Raises:
        ScoringError: the score is not in [0, 1].
    """
    if not 0.0 <= score <= 1.0:
        raise ScoringError(f"The score is {score}, expected a number in [0, 1].")
    first, second, third = policy.band_limits
    if score >= first:
        return 1
    if score >= second:
        return 2
    return 3 if score >= third else 4


def group_of(by: str, age_edges_years: Sequence[int], history: History) -> str:
    """The group of a case, told apart by a field of its history or, for ``age_band``, by its age.

    Returns:
        ``unknown`` where the history does not say.
    """
    if by != "age_band":
        return getattr(history, by) or UNKNOWN
    if history.age_years is None:
        return UNKNOWN
    return age_bands(age_edges_years)[bisect_right(age_edges_years, history.age_years)]


def age_bands(edges_years: Sequence[int]) -> tuple[str, ...]:
    """Names of the bands that ascending ``edges_years`` make: 30 and 50 give three."""
    if not edges_years:
        return ("any age",)
    inner = (f"{low} to {high - 1}" for low, high in pairwise(edges_years))
    return (f"under {edges_years[0]}", *inner, f"{edges_years[-1]} and over")


def decide(policy: Policy, logits: Sequence[float | None], history: History = NO_HISTORY) -> Decision:
    """Decide one case.

    Args:
        policy: calibrator, aggregation, thresholds and bands.
        logits: one entry per photograph of the case; None where the quality gate refused it.
        history: says which groups of the certificate the case belongs to.

    Returns:
        The decision. ``score >= threshold`` refers, so a tie refers. A case without a gradable photograph
        is ungradable and waits in ``policy.ungradable_band``. A case of a group that the certificate does
        not cover goes up, and not in the last band.

    Raises:
        ScoringError: no photograph at all, or a logit that is not finite.
    """
    if not logits:
        raise ScoringError("The case has no photograph, expected at least one.")
    certified = _threshold_of(policy, history)
    threshold = policy.threshold if certified is None else certified
    gradable = [logit for logit in logits if logit is not None]
    if not gradable:
        return Decision(
            disposition=Disposition.ungradable,
            priority_band=policy.ungradable_band,
            score=None,
            threshold=threshold,
            reasons=(ReasonCode.no_gradable_image,),
        )
    score = score_of(policy.calibrator, case_logit(gradable, policy.aggregation))
    band = band_of(policy, score)
    reasons = [ReasonCode.score_at_or_above_threshold] if score >= threshold else []
    if certified is None:
        reasons.append(ReasonCode.uncertified_subgroup)
    if reasons:
        return Decision(Disposition.needs_in_person, _not_last(band), score, threshold, tuple(reasons))
    reason = ReasonCode.score_below_threshold
    return Decision(Disposition.below_threshold, band, score, threshold, (reason,))


def _threshold_of(policy: Policy, history: History) -> float | None:
    """The lowest threshold of the case's groups; None if the certificate does not cover one of them."""
    applied = []
    for grouping in policy.groupings:
        group = group_of(grouping.by, grouping.age_edges_years, history)
        if group not in grouping.thresholds:
            return None
        applied.append(grouping.thresholds[group])
    return min(applied, default=policy.threshold)


def _not_last(band: Band) -> Band:
    return 3 if band == 4 else band

"""From logits to a disposition: the one function that decides in calibration, evaluation and service.

Imports the standard library, the schema, the history, the red flags, the calibrators and the exception tree.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lesion_triage.bundle.calibration import calibrated_score
from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.red_flags import RedFlag, any_flag_refers, latest_allowed_band, raised_flags
from lesion_triage.bundle.schema import Disposition, Policy, ReasonCode
from lesion_triage.errors import ScoringError

Band = Literal[1, 2, 3, 4]
UNKNOWN_GROUP = "unknown"
"""The group of a case whose history does not name one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's decision on one case."""

    disposition: Disposition
    priority_band: Band
    """1 is read first, 4 last."""
    score: float | None
    """In [0, 1]; None if and only if no photograph was gradable."""
    threshold: float
    """The threshold that the score was compared with."""
    reasons: tuple[ReasonCode, ...]
    red_flags: tuple[RedFlag, ...] = ()
    """The flags that the history raises, in the policy's order."""


def aggregate_logits(logits: Sequence[float], aggregation: Literal["max", "mean"]) -> float:
    """Aggregate the logits of a case's gradable photographs.

    Raises:
        ScoringError: there are none, or one is not finite.
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
    # Exact rational mean, rounded once: independent of order, exact for equal logits, no overflow.
    return statistics.mean(logits)


def priority_band_of(policy: Policy, score: float) -> Band:
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
    """The group of a case: a field of its history or, for ``age_band``, the band of its age.

    Returns:
        ``unknown`` if the history does not say.
    """
    if by != "age_band":
        return getattr(history, by) or UNKNOWN_GROUP
    if history.age_years is None:
        return UNKNOWN_GROUP
    return age_bands(age_edges_years)[bisect_right(age_edges_years, history.age_years)]


def age_bands(edges_years: Sequence[int]) -> tuple[str, ...]:
    """Names of the bands between ascending ``edges_years``: 30 and 50 give three."""
    if not edges_years:
        return ("any age",)
    inner = (f"{low} to {high - 1}" for low, high in pairwise(edges_years))
    return (f"under {edges_years[0]}", *inner, f"{edges_years[-1]} and over")


def decide(policy: Policy, logits: Sequence[float | None], history: History = NO_HISTORY) -> Decision:
    """Decide one case.

    Disposition:

    - ``score >= threshold`` refers, so a tie refers.
    - A red flag that asks for a visit refers, with or without a score. So does a group that the certificate
      does not cover.
    - Any other case is ungradable if it has no gradable photograph, and otherwise below the threshold.

    Priority band:

    - A case without a score waits in ``policy.ungradable_band``.
    - A referred case never waits in the last band. No case waits behind the band that its red flags allow.
    - A scored case with a refused photograph never waits in the last band: nobody knows what that photograph
      would have shown.

    Args:
        policy: calibrator, aggregation, thresholds, bands and red flags.
        logits: one entry per photograph of the case; None where a gate refused it.
        history: decides which groups of the certificate the case belongs to, and raises red flags.

    Raises:
        ScoringError: no photograph at all, or a logit that is not finite.
    """
    if not logits:
        raise ScoringError("The case has no photograph, expected at least one.")
    certified = _certified_threshold(policy, history)
    threshold = policy.threshold if certified is None else certified
    gradable = [logit for logit in logits if logit is not None]
    score = (
        calibrated_score(policy.calibrator, aggregate_logits(gradable, policy.aggregation))
        if gradable
        else None
    )
    flags = raised_flags(policy.red_flags.flags, history)
    reasons = []
    if score is not None and score >= threshold:
        reasons.append(ReasonCode.score_at_or_above_threshold)
    if certified is None:
        reasons.append(ReasonCode.uncertified_subgroup)
    if any_flag_refers(flags):
        reasons.append(ReasonCode.red_flag)
    disposition = Disposition.needs_in_person
    if not reasons:
        disposition = Disposition.ungradable if score is None else Disposition.below_threshold
    if score is None:
        reasons.append(ReasonCode.no_gradable_image)
    elif disposition is Disposition.below_threshold:
        reasons.append(ReasonCode.score_below_threshold)
    band = policy.ungradable_band if score is None else priority_band_of(policy, score)
    if disposition is Disposition.needs_in_person:
        band = _at_most_third(band)
    if (limit := latest_allowed_band(flags)) < band:
        band = limit
        reasons.append(ReasonCode.red_flag_band)
    if band == 4 and score is not None and None in logits:
        band = _at_most_third(band)
        reasons.append(ReasonCode.unusable_image_band)
    return Decision(disposition, band, score, threshold, tuple(reasons), flags)


def _certified_threshold(policy: Policy, history: History) -> float | None:
    """Lowest threshold of the case's groups; None if the certificate does not cover one of the groups."""
    thresholds = []
    for grouping in policy.groupings:
        group = group_of(grouping.by, grouping.age_edges_years, history)
        if group not in grouping.thresholds:
            return None
        thresholds.append(grouping.thresholds[group])
    return min(thresholds, default=policy.threshold)


def _at_most_third(band: Band) -> Band:
    return 3 if band == 4 else band

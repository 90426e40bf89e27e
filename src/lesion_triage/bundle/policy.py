"""From logits to a disposition: the one function by which calibration, evaluation and the server decide.

Imports the standard library, the schema and the exception tree.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lesion_triage.bundle.calibration import score_of
from lesion_triage.bundle.schema import Disposition, Policy, ReasonCode
from lesion_triage.errors import ScoringError

Band = Literal[1, 2, 3, 4]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says of one case."""

    disposition: Disposition
    priority_band: Band
    """1 is read first, 4 last."""
    score: float | None
    """In [0, 1]; None if and only if no photograph was gradable."""
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


def decide(policy: Policy, logits: Sequence[float | None]) -> Decision:
    """Decide one case.

    Args:
        policy: calibrator, aggregation, threshold and bands.
        logits: one entry per photograph of the case; None where the quality gate refused it.

    Returns:
        The decision. ``score >= threshold`` refers, so a tie refers; a case without a gradable
        photograph is ungradable and waits in ``policy.ungradable_band``.

    Raises:
        ScoringError: no photograph at all, or a logit that is not finite.
    """
    if not logits:
        raise ScoringError("The case has no photograph, expected at least one.")
    gradable = [logit for logit in logits if logit is not None]
    if not gradable:
        return Decision(
            disposition=Disposition.ungradable,
            priority_band=policy.ungradable_band,
            score=None,
            reasons=(ReasonCode.no_gradable_image,),
        )
    score = score_of(policy.calibrator, case_logit(gradable, policy.aggregation))
    refers = score >= policy.threshold
    return Decision(
        disposition=Disposition.needs_in_person if refers else Disposition.below_threshold,
        priority_band=band_of(policy, score),
        score=score,
        reasons=(ReasonCode.score_at_or_above_threshold if refers else ReasonCode.score_below_threshold,),
    )

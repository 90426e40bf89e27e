"""What a policy costs those who need no visit, on cases that did not choose its threshold. Imports bundle.

A threshold that refers everybody reaches any target sensitivity and is useless.
"""

from __future__ import annotations

from dataclasses import dataclass

from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition, Policy
from lesion_triage.calibrate.cases import gather_cases
from lesion_triage.predictions import Predictions

USELESS_REFERRAL_SHARE = 0.95
"""Share of the negative cases: if more are referred, the queue is hardly shorter than without a model."""


@dataclass(frozen=True, slots=True)
class ReferralBurden:
    """Counts of cases; an abstention counts as a referral."""

    cases: int
    referred: int
    negatives: int
    """Cases that need no in-person visit."""
    negatives_referred: int

    @property
    def referral_rate(self) -> float:
        """Share of all cases that are referred, in [0, 1]."""
        return self.referred / self.cases

    @property
    def specificity(self) -> float | None:
        """Share of the negative cases that are not referred, in [0, 1]; None if there is no negative case."""
        return 1 - self.negatives_referred / self.negatives if self.negatives else None

    @property
    def is_useless(self) -> bool:
        """True if more than 95 % of the negative cases are referred."""
        return self.negatives_referred > USELESS_REFERRAL_SHARE * self.negatives


def measure_referral_burden(policy: Policy, predictions: Predictions) -> ReferralBurden:
    """Decide every case of a table as the server would, and count.

    Raises:
        PredictionsError: a row whose outcome is unknown, or a history that no platform could send.
    """
    cases = gather_cases(predictions.behind_gate(policy.novelty_limit))
    referred = [
        decide(policy, case.logits, case.history).disposition is not Disposition.below_threshold
        for case in cases
    ]
    negative = [not case.needs_in_person for case in cases]
    both = sum(sent and free for sent, free in zip(referred, negative, strict=True))
    return ReferralBurden(len(cases), sum(referred), sum(negative), both)

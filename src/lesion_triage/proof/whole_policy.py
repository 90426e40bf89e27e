"""The whole policy under test: gates, red flags and score, decided by the policy itself.

Imports numpy, the bundle's policy, calibrate's certificate and this package.

The recorded cases have no photograph that a gate refused, and no answers to questions. So refusals and
answers are added at random, in the shares below. Each case is then decided as in the server: by
``bundle.policy.decide``, without a shortcut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.calibration import PlattCalibrator
from lesion_triage.bundle.history import NO_HISTORY, History, history_to_text
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.red_flags import Action, IsTrue, RedFlag, RedFlags
from lesion_triage.bundle.schema import Disposition, Policy, ReasonCode
from lesion_triage.calibrate.cases import Case, case_scores, red_flag_mask
from lesion_triage.calibrate.certificate import certified_threshold
from lesion_triage.proof.exact_distributions import Floats
from lesion_triage.proof.pool import Pool
from lesion_triage.proof.pool_draws import CONFIDENCE, TARGETS, draw
from lesion_triage.proof.trial import Rule, Trial, certify_each

SIZES = (59, 140, 300)
REFUSED, BLED = 0.20, 0.60
"""Shares of the photographs that a gate refuses, and of the cases whose history says that the lesion bled."""

_STREAM = 4
_CALIBRATOR = PlattCalibrator(slope=1.0, intercept=0.0)
_RULES = RedFlags(
    flags=(
        RedFlag(
            code="bleeding",
            when=IsTrue.model_validate({"field": "bleeding", "is": True}),
            action=Action(refer=True),
            source="Answers drawn at random.",
        ),
    )
)


@dataclass(frozen=True, eq=False)
class ReferralShares:
    """What the policy does with the positive cases of the pool, at every threshold that a draw can give."""

    by_score: Floats
    """Score of each case, +inf if no photograph could be scored; shape (cases,)."""
    counted: Floats
    """The same, but +inf also if a red flag refers."""
    thresholds: Floats
    """Ascending."""
    sent_up: Floats
    """Share of the cases that the policy sends up at each threshold."""
    sent_up_without_history: Floats
    """The same on a platform that sends no history."""
    sent_up_if_refused_are_not: Floats
    """The same without a history, if a case that cannot be scored is sent away instead of up."""

    def at(self, shares: Floats, thresholds: Floats) -> Floats:
        """The share at each of ``thresholds``, which must be among ``self.thresholds``."""
        return shares[np.searchsorted(self.thresholds, thresholds)]


def whole_policy_trials(
    pool: Pool, draws: int, seed: int, rule: Rule = certified_threshold
) -> Iterator[Trial]:
    """All rows of the test of the whole policy.

    Args:
        pool: the population.
        draws: number of calibration sets of each size.
        seed: of the draws, of the refusals and of the answers.
        rule: under test.
    """
    shares = referral_shares(with_random_refusals(pool.cases, seed))
    for size in SIZES:
        drawn = draw(len(pool.cases), size, draws, (seed, _STREAM, size))
        for target in TARGETS:
            alone, allowed = certify_each(shares.by_score[drawn], rule, target, CONFIDENCE)
            counting, _ = certify_each(shares.counted[drawn], rule, target, CONFIDENCE)
            for what, expected, thresholds, sent_up in (
                ("whole policy", "keeps", alone, shares.sent_up),
                ("whole policy, no history is sent", "keeps", alone, shares.sent_up_without_history),
                ("whole policy, red flags counted", "keeps", counting, shares.sent_up),
                (
                    "red flags counted, then no history is sent",
                    "breaks",
                    counting,
                    shares.sent_up_without_history,
                ),
                (
                    "refused cases counted, then sent away; no history",
                    "breaks",
                    alone,
                    shares.sent_up_if_refused_are_not,
                ),
            ):
                yield Trial(
                    what=what,
                    expected=expected,  # type: ignore[arg-type]  # the words of the table above
                    positives=size,
                    target=target,
                    confidence=CONFIDENCE,
                    draws=draws,
                    violations=int(np.count_nonzero(shares.at(sent_up, thresholds) < target)),
                    misses_allowed=allowed,
                )


def with_random_refusals(cases: tuple[Case, ...], seed: int) -> tuple[Case, ...]:
    """The cases with refusals and answers drawn at random."""
    rng = np.random.default_rng((seed, _STREAM))
    return tuple(_with_random_refusals(case, rng) for case in cases)


def _with_random_refusals(case: Case, rng: np.random.Generator) -> Case:
    bled = bool(rng.random() < BLED)
    refused = rng.random(len(case.rows)) < REFUSED
    return Case(
        case.case_id,
        tuple(
            replace(
                row,
                logit=None if out else row.logit,
                quality_codes=ReasonCode.out_of_distribution.value if out else row.quality_codes,
                history=history_to_text(History(bleeding=bled)),
            )
            for row, out in zip(case.rows, refused.tolist(), strict=True)
        ),
    )


def referral_shares(cases: tuple[Case, ...]) -> ReferralShares:
    """Decide every case at every threshold that a certificate on a draw of them could set."""
    by_score = case_scores(cases, _CALIBRATOR, "max")
    counted = np.where(red_flag_mask(cases, _RULES), np.inf, by_score)
    thresholds = np.unique(by_score[np.isfinite(by_score)])
    shares = np.array([_shares(cases, threshold) for threshold in thresholds])
    return ReferralShares(by_score, counted, thresholds, *shares.T)


def _shares(cases: tuple[Case, ...], threshold: float) -> tuple[float, float, float]:
    """Shares sent up: as served; without a history; without a history and with refused cases sent away."""
    policy = Policy(
        calibrator=_CALIBRATOR,
        threshold=threshold,
        band_limits=(threshold,) * 3,
        red_flags=_RULES,
    )
    up: NDArray[np.bool_] = np.empty((3, len(cases)), dtype=np.bool_)
    for place, case in enumerate(cases):
        decision = decide(policy, case.logits, case.history)
        up[0, place] = decision.disposition is not Disposition.below_threshold
        mute = decide(policy, case.logits, NO_HISTORY)
        up[1, place] = mute.disposition is not Disposition.below_threshold
        up[2, place] = mute.disposition is Disposition.needs_in_person
    first, second, third = up.mean(axis=1)
    return float(first), float(second), float(third)

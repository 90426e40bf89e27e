"""A site's own cases as its reading queue sees them. Imports numpy, statistics and the exception tree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lesion_triage.errors import CalibrationError

Floats = NDArray[np.float64]
Order = Literal["first_come", "binary_flag", "four_bands", "score_order"]
Group = Literal["all", "positives", "referred_positives", "missed_positives", "negatives"]

ORDERS: tuple[Order, ...] = get_args(Order)
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """A site's own cases; simulated arrivals are drawn from them with replacement."""

    scores: Floats
    """Shape (n,), in [0, 1]; +inf where the policy abstained, which counts as referred."""
    positive: NDArray[np.bool_]
    """The reference standard, shape (n,)."""
    threshold: float
    """``score >= threshold`` refers."""
    band_limits: tuple[float, float, float]
    """Lowest score of priority band 1, 2 and 3, descending, the third at most the threshold."""
    ungradable_band: int = 1
    """Band of an abstention."""

    def __post_init__(self) -> None:
        scores, positive = self.scores, self.positive
        if scores.shape != positive.shape or scores.ndim != 1:
            raise CalibrationError(
                f"expected as many scores as outcomes, found {scores.shape} and {positive.shape}."
            )
        if not (((scores >= 0) & (scores <= 1)) | np.isposinf(scores)).all():
            raise CalibrationError("a score is NaN or outside [0, 1]; the model or its calibrator is broken.")
        positives, negatives = int(positive.sum()), int((~positive).sum())
        if positives == 0 or negatives == 0:
            raise CalibrationError(
                f"a queue needs cases of both classes, found {positives} that need an in-person visit and "
                f"{negatives} that do not; give more cases."
            )
        first, second, third = self.band_limits
        if not 1 >= first >= second >= third >= 0 or not third <= self.threshold <= 1:
            raise CalibrationError(
                f"the band limits are {self.band_limits} and the threshold {self.threshold}, expected "
                "numbers in [0, 1] that descend, the last limit at most the threshold."
            )
        if self.ungradable_band not in (1, 2, 3, 4):
            raise CalibrationError(f"the ungradable band is {self.ungradable_band}, expected 1, 2, 3 or 4.")

    @property
    def referred(self) -> NDArray[np.bool_]:
        """Flagged by the policy, abstentions among them."""
        return self.scores >= self.threshold

    def bands(self) -> NDArray[np.intp]:
        """Priority band of every case, 1 to 4, as ``bundle.policy.decide`` gives it to a score alone.

        A pool has neither histories nor photographs, which can keep a case out of the last band.
        """
        bands = 1 + sum((self.scores < limit).astype(np.intp) for limit in self.band_limits)
        return np.where(np.isposinf(self.scores), self.ungradable_band, bands)

    def urgency(self, order: Order) -> NDArray[np.intp]:
        """Class of every case under an order, shape (n,), 0 the most urgent; ties are first come."""
        if order == "binary_flag":
            return (~self.referred).astype(np.intp)
        if order == "four_bands":
            return self.bands() - 1
        if order == "score_order":
            return np.unique(-self.scores, return_inverse=True)[1].astype(np.intp)
        return np.zeros(self.scores.size, dtype=np.intp)

    def group_masks(self) -> dict[Group, NDArray[np.bool_]]:
        """Which cases belong to each group, shape (n,) each."""
        return {
            "all": np.ones_like(self.positive),
            "positives": self.positive,
            "referred_positives": self.positive & self.referred,
            "missed_positives": self.positive & ~self.referred,
            "negatives": ~self.positive,
        }

    def arrival_probabilities(self, prevalence: float | None = None) -> Floats:
        """Probability that each case is the next to arrive, shape (n,), at the given prevalence.

        None keeps the prevalence of the pool.

        Raises:
            CalibrationError: a prevalence that is not in (0, 1).
        """
        wanted = float(self.positive.mean()) if prevalence is None else prevalence
        if not 0 < wanted < 1:
            raise CalibrationError(f"the prevalence is {wanted}, expected more than 0 and less than 1.")
        positives = int(self.positive.sum())
        return np.where(
            self.positive, wanted / positives, (1 - wanted) / (self.positive.size - positives)
        ).astype(np.float64)


def binormal_scores(auroc: float, prevalence: float, cases: int = 20_000) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores of a hypothetical model (equal-variance binormal), to try the queue without one.

    The latent score is normal with variance 1 and class means ``d = sqrt(2) * Phi^-1(auroc)`` apart (Hanley
    1988, Medical Decision Making 8:197). It is taken at evenly spaced quantiles instead of at random, so that
    only the queue is random. The logit is the log-likelihood ratio plus the prior log odds (variance d^2,
    means d^2 apart), so the score is calibrated.

    Args:
        auroc: in (0.5, 1).
        prevalence: in (0, 1); at least one case of each class is made.
        cases: how many.

    Returns:
        Scores in [0, 1] and the reference standard, shape (cases,) each.

    Raises:
        CalibrationError: an argument out of range.
    """
    if not (0.5 < auroc < 1 and 0 < prevalence < 1):
        raise CalibrationError(
            f"expected an AUROC in (0.5, 1) and a prevalence in (0, 1), found {auroc} and {prevalence}."
        )
    normal, positives = NormalDist(), min(max(round(cases * prevalence), 1), cases - 1)
    separation = math.sqrt(2) * normal.inv_cdf(auroc)
    logits = [
        separation * (0.5 * side * separation + normal.inv_cdf((case + 0.5) / count))
        for side, count in ((1, positives), (-1, cases - positives))
        for case in range(count)
    ]
    odds = np.exp(np.array(logits) + math.log(prevalence / (1 - prevalence)))
    return odds / (1 + odds), np.arange(cases) < positives

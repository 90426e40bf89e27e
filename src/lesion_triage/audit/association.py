"""Yes-or-no properties against the label: odds ratios, Fisher's exact test, Holm's correction.

Imports numpy, scipy and this package's findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from lesion_triage.audit.findings import Measurement, Verdict
from lesion_triage.config import Audit
from lesion_triage.data.categorical import Bools

_Z = 1.959963984540054
_FAIL_SHARE = 0.10
"""A failure also requires the property's shares among positives and negatives to differ by this much: a
rare property cannot carry a model."""


@dataclass(frozen=True, slots=True)
class Association:
    """How a property is associated with the label; counts of independent rows."""

    names: tuple[str, ...]
    """Several if columns are empty in exactly the same rows."""
    with_positive: int
    positives: int
    with_negative: int
    negatives: int
    p_value: float
    """Two-sided, exact, corrected for the whole family of tests."""

    @property
    def share_positive(self) -> float:
        """Share of the positives that have the property."""
        return self.with_positive / max(self.positives, 1)

    @property
    def share_negative(self) -> float:
        """Share of the negatives that have the property."""
        return self.with_negative / max(self.negatives, 1)

    def odds_ratio(self) -> tuple[float, float, float]:
        """Value and 95 % interval, with one half added to each count (Haldane 1956, Anscombe 1956)."""
        cells = np.array(
            [
                self.with_positive,
                self.negatives - self.with_negative,
                self.positives - self.with_positive,
                self.with_negative,
            ],
            dtype=np.float64,
        )
        cells += 0.5
        value = float(np.log(cells[0] * cells[1] / cells[2] / cells[3]))
        half = _Z * float(np.sqrt((1 / cells).sum()))
        return float(np.exp(value)), float(np.exp(value - half)), float(np.exp(value + half))

    def conservative_odds_ratio(self) -> float:
        """Lower end of the interval of the odds ratio or of its inverse, whichever is larger; at least 1."""
        _, low, high = self.odds_ratio()
        return max(low, 1 / high, 1.0)

    def verdict(self, config: Audit) -> Verdict:
        """Warns or fails only if it is significant within its family and large enough to matter."""
        if self.p_value > config.false_alarm:
            return Verdict.PASS
        size = self.conservative_odds_ratio()
        if size > config.fail_odds_ratio and abs(self.share_positive - self.share_negative) >= _FAIL_SHARE:
            return Verdict.FAIL
        return Verdict.WARN if size > config.warn_odds_ratio else Verdict.PASS

    def to_measurement(self, config: Audit) -> Measurement:
        """The odds ratio as an entry of the report."""
        value, low, high = self.odds_ratio()
        return Measurement(
            what=f"odds ratio of {', '.join(self.names)} with the label",
            value=value,
            low=low,
            high=high,
            limit=f"interval above {config.warn_odds_ratio:g} warns, above {config.fail_odds_ratio:g} fails, "
            "in either direction",
            note=f"{self.with_positive} of {self.positives} positives and {self.with_negative} of "
            f"{self.negatives} negatives; corrected p {self.p_value:.2g}",
        )


def associations(properties: Mapping[str, Bools], positive: Bools) -> list[Association]:
    """Test a family of properties, strongest first; properties with equal patterns are tested once.

    Args:
        properties: by name, each of shape (n,).
        positive: the label, shape (n,). Rows with the same label are independent.

    Returns:
        One for each pattern that is neither always nor never present; p-values corrected by Holm (1979).
    """
    patterns: dict[bytes, list[str]] = {}
    for name, present in properties.items():
        if present.any() and not present.all():
            patterns.setdefault(np.packbits(present).tobytes(), []).append(name)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    tallies = []
    for names in patterns.values():
        present = properties[names[0]]
        yes, no = int((present & positive).sum()), int((present & ~positive).sum())
        tallies.append((tuple(names), yes, no, _fisher_p_value(yes, positives, no, negatives)))
    corrected = holm_adjust(np.array([tally[3] for tally in tallies]))
    found = [
        Association(names, yes, positives, no, negatives, float(p))
        for (names, yes, no, _), p in zip(tallies, corrected, strict=True)
    ]
    return sorted(found, key=lambda one: (one.p_value, -one.conservative_odds_ratio(), one.names))


def holm_adjust(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down correction, valid under any dependence. Shape (m,) to (m,)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(p_values.size, 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * steps), 1.0)
    return corrected


def names_of(found: Sequence[Association]) -> tuple[str, ...]:
    """All names, each once."""
    return tuple(dict.fromkeys(name for one in found for name in one.names))


def _fisher_p_value(yes: int, positives: int, no: int, negatives: int) -> float:
    return float(fisher_exact([[yes, positives - yes], [no, negatives - no]]).pvalue)

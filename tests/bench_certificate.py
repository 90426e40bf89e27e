"""``make bench``: certifying 100,000 cases in 22 groups, and how the time grows with the cases."""

from __future__ import annotations

import time

import numpy as np

from lesion_triage.bundle.certificate import GroupBy
from lesion_triage.calibrate.policy_fit import CaseProvenance, certify
from lesion_triage.config import Calibrate
from lesion_triage.predictions import Predictions
from made_predictions import MANIFEST, MODEL, SPLITS, TABLE, row

_GROUPS = Calibrate(
    groups=(
        GroupBy(by="sex"),
        GroupBy(by="age_band"),
        GroupBy(by="anatom_site_general"),
        GroupBy(by="reference_class"),
        GroupBy(by="source"),
    )
)
_SITES = ("back", "face", "arm", "leg", "chest", "foot", "hand", "scalp")


def table(split: str, cases: int, seed: int) -> Predictions:
    """A made-up split: a fifth of the cases positive, scored two standard deviations higher."""
    random = np.random.default_rng(seed)
    positive = random.random(cases) < 0.2
    logits = random.normal(size=cases) + 2 * positive
    rows = (
        row(
            f"{split}-{i}",
            f"{split}-{i}",
            float(logits[i]),
            bool(positive[i]),
            sex=("female", "male")[i % 2],
            age_approx=float(i % 90),
            anatom_site_general=_SITES[i % 8],
            diagnosis=("mel", "bcc", "akiec")[i % 3],
            source="abcd"[i % 4],
        )
        for i in range(cases)
    )
    return Predictions(split, MANIFEST, SPLITS, MODEL, tuple(rows))


def main() -> None:
    """Print CPU seconds, and the ratio for each doubling."""
    validation = table("validation", 5000, 1)
    origin = CaseProvenance("2025-01-01T00:00:00Z", "lesion", TABLE)
    before = None
    print("\ncertificate, CPU seconds (ratio to half as many cases):")
    for cases in (12_500, 25_000, 50_000, 100_000):
        calibration = table("calibration", cases, 2)
        began = time.process_time()
        _, certificate = certify(validation, calibration, _GROUPS, origin)
        spent = time.process_time() - began
        ratio = f" ({spent / before:.2f})" if before else ""
        print(f"  {cases:>7,} cases, {len(certificate.groups)} groups: {spent:.2f}{ratio}")
        before = spent


if __name__ == "__main__":
    main()

"""Tables of logits with known outcomes, made up in milliseconds; needs numpy and ``calibrate`` alone."""

from __future__ import annotations

import numpy as np

from lesion_triage.bundle.document import sha256_of
from lesion_triage.calibrate.policy_fit import CaseProvenance, certify
from lesion_triage.config import Calibrate
from lesion_triage.predictions import Prediction, Predictions

MANIFEST, SPLITS, MODEL, TABLE = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def row(image_id, case_id, logit, needs_in_person, unit_id=None, **columns):
    """One photograph; ``columns`` are those of a prediction that matter to the test."""
    known = {
        "diagnosis": "irregular" if needs_in_person else "regular",
        "diagnosis_confirm_type": "",
        "source": "synthetic",
        "sex": "",
        "age_approx": None,
        "anatom_site_general": "",
        "fitzpatrick_skin_type": "",
    }
    return Prediction(
        image_id=image_id,
        case_id=case_id,
        unit_id=unit_id or case_id,
        file_fingerprint=sha256_of(image_id.encode())[:16],
        pixel_fingerprint=sha256_of(f"pixels of {image_id}".encode())[:16],
        logit=logit,
        quality_codes="" if logit is not None else "image_too_dark",
        novelty=None if logit is None else 1.0,
        needs_in_person=needs_in_person,
        **(known | columns),
    )


def predictions(split, cases=400, positives=100, *, seed=0, ungradable=0.05, levels=None):
    rng = np.random.default_rng([seed, len(split)])
    rows = []
    for case in range(cases):
        for photograph in range(rng.integers(1, 4)):
            logit = rng.normal() + (2 if case < positives else 0)
            if levels:
                logit = round(logit * levels) / levels
            dark = rng.random() < ungradable
            rows.append(
                row(
                    f"{split}-{case}-{photograph}",
                    f"{split}-{case}",
                    None if dark else logit,
                    case < positives,
                )
            )
    return Predictions(split, MANIFEST, SPLITS, MODEL, tuple(rows))


def certified(validation=None, calibration=None, config=None, unit="lesion", **more):
    return certify(
        validation or predictions("validation"),
        calibration or predictions("calibration"),
        config or Calibrate(),
        CaseProvenance(issued_at="2025-01-01T00:00:00Z", unit=unit, predictions_sha256=TABLE, **more),
    )


def spread(positives, negatives=20, lowest=0.5):
    """Positive cases with logits from ``lowest`` up, a tenth apart, and negative ones below -1."""
    return [
        *((lowest + 0.1 * (number % 40), True, {}) for number in range(positives)),
        *((-1.0 - 0.1 * (number % 20), False, {}) for number in range(negatives)),
    ]

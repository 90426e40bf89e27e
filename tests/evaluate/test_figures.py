"""What a figure shows is not cut off at its edge."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.decision_analysis import NetBenefit
from lesion_triage.evaluate.figures import clinical_utility


def test_the_band_of_a_decision_curve_ends_within_the_axes():
    """Few cases make a wide band: its upper end lay above the axes, and read as if it were there."""
    rows = [
        NetBenefit(p / 100, Estimate(0.3 - p / 500, 0.1, 0.5, 100), Estimate(0.3, 0.1, 0.5, 100))
        for p in range(1, 51)
    ]
    pixels = np.asarray(
        Image.open(io.BytesIO(clinical_utility.decision_curve(rows, rows))).convert("RGB")
    ).astype(int)
    dark = (pixels < 60).all(axis=2)
    spine = np.flatnonzero(dark[:, dark.sum(axis=0).argmax()])
    band = np.flatnonzero((np.abs(pixels - (204, 227, 240)).max(axis=2) < 8).sum(axis=1) > 100)
    assert spine.min() + 10 < band.min() < band.max() < spine.max()

"""The quality gate: is a photograph good enough to be scored? Imports numpy, the pixels and the schema."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lesion_triage.bundle.pixels import Picture
from lesion_triage.bundle.schema import QualityLimits, ReasonCode


@dataclass(frozen=True, slots=True)
class Quality:
    """What the gate measures. Grey levels run from 0 (black) to 255 (white)."""

    short_side_px: int
    """Shorter side of the original picture."""
    mean_level: float
    contrast: float
    """Standard deviation of the grey levels of the prepared square."""


def assess(picture: Picture, limits: QualityLimits) -> tuple[Quality, ReasonCode | None]:
    """Measure a picture and say why it cannot be scored; None means gradable.

    Grey is the luma of ITU-R BT.601. It is summed in integers, so a picture at a limit falls on the same
    side of it on every processor.
    """
    red, green, blue = np.moveaxis(picture.pixels.astype(np.int64), -1, 0)
    luma = 299 * red + 587 * green + 114 * blue  # thousandths of a grey level
    count, total, squares = luma.size, int(luma.sum()), int(np.square(luma).sum())
    quality = Quality(
        short_side_px=min(picture.width_px, picture.height_px),
        mean_level=total / (1000 * count),
        contrast=math.sqrt(count * squares - total**2) / (1000 * count),
    )
    return quality, _complaint(quality, limits)


def _complaint(quality: Quality, limits: QualityLimits) -> ReasonCode | None:
    if quality.short_side_px < limits.min_short_side_px:
        return ReasonCode.image_too_small
    if quality.mean_level < limits.min_mean_level:
        return ReasonCode.image_too_dark
    if quality.mean_level > limits.max_mean_level:
        return ReasonCode.image_too_bright
    if quality.contrast < limits.min_contrast:
        return ReasonCode.image_without_detail
    return None

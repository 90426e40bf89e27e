"""The quality gate measures what it says, and a limit itself is good enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesion_triage.bundle.pixels import Picture
from lesion_triage.bundle.quality import assess
from lesion_triage.bundle.schema import QualityLimits, ReasonCode


def picture(pixels: NDArray[np.uint8], width_px: int = 640, height_px: int = 480) -> Picture:
    return Picture(pixels=pixels, width_px=width_px, height_px=height_px)


def halves(dark: int, bright: int) -> NDArray[np.uint8]:
    """Grey square, half of it at each level: mean and contrast can be worked out in the head."""
    square = np.full((32, 32, 3), dark, dtype=np.uint8)
    square[16:] = bright
    return square


def test_measures_short_side_mean_and_contrast() -> None:
    quality, complaint = assess(picture(halves(100, 140), 300, 200), QualityLimits())
    assert (quality.short_side_px, quality.mean_level, quality.contrast) == (200, 120.0, 20.0)
    assert complaint is None


@given(st.integers(0, 2**32 - 1))
def test_agrees_with_floating_point_luma(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    luma = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
    quality, _ = assess(picture(pixels), QualityLimits())
    assert quality.mean_level == pytest.approx(luma.mean(), abs=1e-9)
    assert quality.contrast == pytest.approx(luma.std(), abs=1e-9)


def test_the_largest_square_does_not_overflow() -> None:
    pixels = np.zeros((1024, 1024, 3), dtype=np.uint8)
    pixels[512:] = 255
    quality, _ = assess(picture(pixels), QualityLimits())
    assert (quality.mean_level, quality.contrast) == (127.5, 127.5)


@pytest.mark.parametrize(
    ("pixels", "size", "complaint"),
    [
        (halves(100, 140), (99, 4000), ReasonCode.image_too_small),
        (halves(100, 140), (4000, 99), ReasonCode.image_too_small),
        (halves(0, 50), (640, 480), ReasonCode.image_too_dark),
        (halves(245, 255), (640, 480), ReasonCode.image_too_bright),
        (halves(120, 121), (640, 480), ReasonCode.image_without_detail),
        (halves(0, 0), (1, 1), ReasonCode.image_too_small),
    ],
)
def test_names_the_reason(pixels: NDArray[np.uint8], size: tuple[int, int], complaint: ReasonCode) -> None:
    assert assess(picture(pixels, *size), QualityLimits())[1] is complaint


def test_a_picture_at_every_limit_is_gradable() -> None:
    limits = QualityLimits(min_short_side_px=480, min_mean_level=120, max_mean_level=120, min_contrast=20)
    assert assess(picture(halves(100, 140)), limits)[1] is None

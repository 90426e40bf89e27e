"""The quality gate: is a photograph good enough to be scored, and what would make it better?

Imports numpy, Pillow, the pixels, the schema and the measures beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_triage.bundle import focus, framing, occlusions
from lesion_triage.bundle.pixels import Picture
from lesion_triage.bundle.schema import QualityLimits, ReasonCode

_GREY_SIDE_PX = 128
"""Side of the copy on which structure is measured: limits must not depend on the network's input size."""
_COLOUR_SIDE_PX = 64
"""Least side of the copy on which colours are measured."""
_SATURATED_LEVEL = 250
"""Level from which on a channel counts as saturated: cameras and resizing distort the last few."""
_MAX_SKIN_RATIOS = {"blue/red": 1.0, "green/red": 1.0, "red/green": 1.9, "green/blue": 1.6}
"""Ratios of sRGB levels that skin does not exceed in neutral light. The reflectance of skin rises with the
wavelength, whatever its tone, so red is never below green or blue. The other two ratios are those of strongly
reddened and of strongly tanned skin, with some margin."""

_CODE_ORDER = tuple(ReasonCode)
_ONES, _LEVELS, _SQUARES = (np.arange(256) ** power for power in range(3))
_COARSE_FREQUENCIES = 4
"""Frequencies per side, of JPEG's eight, that count: periods down to five pixels, where structure is."""


@dataclass(frozen=True, slots=True)
class QualityMeasures:
    """What the gate measures. Grey levels run from 0 (black) to 255 (white)."""

    short_side_px: int
    """Shorter side of the original picture."""
    mean_level: float
    contrast: float
    """Standard deviation of the grey levels of the prepared square."""
    clipped_share: float
    """Share of the square with two or three channels saturated."""
    glare_share: float
    """Share of the square with all three channels saturated."""
    focus: float
    """See ``focus.sharpness``."""
    cast: float
    """Factor by which a ratio of two channels exceeds that of skin in neutral light, over the brighter half
    of the picture, which is skin more often than lesion."""
    erased_level: float | None
    """Mean amplitude, in grey levels, below which the file's last JPEG compression erased coarse structure
    that would have survived resizing. None: not a JPEG."""


@dataclass(frozen=True, slots=True)
class SceneMeasures:
    """What seems to be in the picture. It only leads to advice, never to a refusal."""

    lesion_step: float
    """See ``framing.Framing``, as for the next."""
    lesion_offset: float
    hair_share: float
    ink_share: float


@dataclass(frozen=True, slots=True)
class _ReducedCopies:
    """Reduced copies, each shared by several measures."""

    luma: Image.Image
    grey: NDArray[np.int16]
    """(n, n), n at most ``_GREY_SIDE_PX``."""
    colours: NDArray[np.float32]
    """(3, n, n), RGB, n at least ``_COLOUR_SIDE_PX`` if the picture is that large."""


@dataclass(frozen=True, slots=True)
class QualityAssessment:
    """Findings on one photograph. Codes are in the order of ``ReasonCode``, without duplicates."""

    measures: QualityMeasures
    refusals: tuple[ReasonCode, ...]
    """Everything that keeps it from being scored; empty if it is gradable."""
    advice: tuple[ReasonCode, ...]
    """What would make it better, though it does not prevent a score."""


def assess_quality(picture: Picture, limits: QualityLimits, *, advise: bool = True) -> QualityAssessment:
    """Measure a picture and compare it with the limits.

    Args:
        picture: from ``pixels.decode``.
        limits: of the policy.
        advise: False leaves advice out and saves a third of the time; refusals do not change.
    """
    copies = _reduce(picture)
    measures = _measure(picture, copies)
    refusals = _refusals(measures, limits)
    is_visible = not refusals & {
        ReasonCode.image_too_dark,
        ReasonCode.image_too_bright,
        ReasonCode.image_without_detail,
    }
    advice = (
        _advice(measures, _measure_scene(picture, copies), limits) - refusals
        if advise and is_visible
        else set()
    )
    return QualityAssessment(
        measures=measures,
        refusals=tuple(sorted(refusals, key=_CODE_ORDER.index)),
        advice=tuple(sorted(advice, key=_CODE_ORDER.index)),
    )


def _reduce(picture: Picture) -> _ReducedCopies:
    image = picture.square
    luma = image.convert("L")
    reduced = np.asarray(image.reduce(max(1, image.width // _COLOUR_SIDE_PX)))
    return _ReducedCopies(
        luma=luma,
        grey=np.asarray(_downscale(luma, _GREY_SIDE_PX)).astype(np.int16),
        colours=np.array(np.moveaxis(reduced, -1, 0), np.float32, order="C"),
    )


def _measure(picture: Picture, copies: _ReducedCopies) -> QualityMeasures:
    """Measure everything that can refuse a picture.

    Grey is the luma of ITU-R BT.601, in whole levels as Pillow rounds it. All measures are integer counts or
    sums, divided once, so a picture at a limit falls on the same side of it on every processor.
    """
    two_full, three_full = _count_saturated(picture.pixels)
    pixels = picture.pixels.shape[0] * picture.pixels.shape[1]
    mean_level, contrast = _mean_and_contrast(copies.luma)
    return QualityMeasures(
        short_side_px=min(picture.width_px, picture.height_px),
        mean_level=mean_level,
        contrast=contrast,
        clipped_share=two_full / pixels,
        glare_share=three_full / pixels,
        focus=focus.sharpness(copies.grey),
        cast=_colour_cast(copies.colours),
        erased_level=_erased_level(picture),
    )


def _measure_scene(picture: Picture, copies: _ReducedCopies) -> SceneMeasures:
    side = (framing.SIDE_PX, framing.SIDE_PX)
    found = framing.locate_lesion(
        np.asarray(picture.square.getchannel("G").resize(side, Image.Resampling.BOX))
    )
    return SceneMeasures(
        lesion_step=found.step,
        lesion_offset=found.offset,
        hair_share=occlusions.hair_share(copies.grey),
        ink_share=occlusions.ink_share(copies.colours),
    )


def _refusals(measures: QualityMeasures, limits: QualityLimits) -> set[ReasonCode]:
    """Once light or detail is lacking, nothing further is judged: a black frame is dark, not blurred."""
    found: set[ReasonCode] = set()
    if measures.short_side_px < limits.min_short_side_px:
        found.add(ReasonCode.image_too_small)
    if measures.erased_level is not None and measures.erased_level > limits.max_erased_level:
        found.add(ReasonCode.image_compressed)
    if measures.mean_level < limits.min_mean_level:
        return found | {ReasonCode.image_too_dark}
    if measures.mean_level > limits.max_mean_level or measures.clipped_share > limits.max_clipped_share:
        return found | {ReasonCode.image_too_bright}
    if measures.contrast < limits.min_contrast:
        return found | {ReasonCode.image_without_detail}
    if measures.focus < limits.min_focus:
        found.add(ReasonCode.image_blurred)
    if measures.glare_share > limits.max_glare_share:
        found.add(ReasonCode.image_glare)
    if measures.cast > limits.max_cast:
        found.add(ReasonCode.image_colour_cast)
    return found


def _advice(measures: QualityMeasures, scene: SceneMeasures, limits: QualityLimits) -> set[ReasonCode]:
    erased = measures.erased_level
    found = {
        ReasonCode.image_too_bright: measures.clipped_share > limits.advise_clipped_share,
        ReasonCode.image_blurred: measures.focus < limits.advise_focus,
        ReasonCode.image_compressed: erased is not None and erased > limits.advise_erased_level,
        ReasonCode.image_glare: measures.glare_share > limits.advise_glare_share,
        ReasonCode.image_colour_cast: measures.cast > limits.advise_cast,
        ReasonCode.image_no_lesion_found: scene.lesion_step < limits.advise_lesion_step,
        ReasonCode.image_lesion_cut_off: scene.lesion_offset > limits.advise_lesion_offset,
        ReasonCode.image_hair: scene.hair_share > limits.advise_hair_share,
        ReasonCode.image_ink: scene.ink_share > limits.advise_ink_share,
    }
    if found[ReasonCode.image_no_lesion_found]:
        found[ReasonCode.image_lesion_cut_off] = False
    return {code for code, holds in found.items() if holds}


def _mean_and_contrast(grey: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels of a picture of mode L."""
    counts = np.array(grey.histogram(), np.int64)
    count, total, squares = (int(counts @ weights) for weights in (_ONES, _LEVELS, _SQUARES))
    return total / count, math.sqrt(count * squares - total**2) / count


def _count_saturated(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """How many pixels have at least two channels saturated, and how many have all three."""
    if pixels.max() < _SATURATED_LEVEL:  # true of most photographs
        return 0, 0
    saturated = (pixels >= _SATURATED_LEVEL).view(np.uint8)
    channels = saturated[..., 0] + saturated[..., 1] + saturated[..., 2]  # sum() takes ten times as long
    return int(np.count_nonzero(channels >= 2)), int(np.count_nonzero(channels == 3))


def _downscale(image: Image.Image, side_px: int) -> Image.Image:
    """Reduce by the area-weighted mean, in Pillow's integers; never enlarge."""
    return image if image.width <= side_px else image.resize((side_px, side_px), Image.Resampling.BOX)


def _colour_cast(colours: NDArray[np.float32]) -> float:
    """Sums stay below 2**24, so float32 holds them exactly, in any order."""
    flat = colours.reshape(3, -1)
    brightness = flat.sum(axis=0)
    brighter = (brightness * np.float32(brightness.size) >= brightness.sum()).astype(np.float32)
    means = dict(zip(("red", "green", "blue"), np.einsum("ij,j->i", flat, brighter).tolist(), strict=True))
    ratios = []
    for pair, neutral in _MAX_SKIN_RATIOS.items():
        upper, lower = pair.split("/")
        ratios.append(means[upper] / max(1.0, means[lower]) / neutral)
    return float(max(ratios))


def _erased_level(picture: Picture) -> float | None:
    """From the quantisation steps of the file's coefficients.

    A wave of amplitude a over a block of 8 x 8 pixels has a coefficient of at least 4 a (ITU-T T.81, A.3.3),
    and vanishes if that is below half a step. Frequencies that resizing removes do not matter: of a large
    photograph only the mean of each block is left, with a coefficient of 8 a.
    """
    if picture.quantisation is None:
        return None
    short_side_px = min(picture.width_px, picture.height_px)
    kept = min(_COARSE_FREQUENCIES, -(-8 * picture.pixels.shape[0] // short_side_px))
    steps = np.array(picture.quantisation).reshape(8, 8)[:kept, :kept]
    return (2 * int(steps.sum()) - int(steps[0, 0])) / (16 * steps.size)

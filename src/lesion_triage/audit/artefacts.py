"""Simple detectors on one picture: lesion, corners, hair, ink, ruler, patches, and the tone of the skin.

Imports numpy, OpenCV and nothing of ours. The detectors serve to compare groups of pictures, not to judge
one: each misses some artefacts and reports some that are not there. Lengths are shares of the side.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 192
"""Pictures are measured at this size, stretched to a square as the network sees them."""

_CORNER, _CORNER_DARK, _CORNERS = 0.06, 0.55, 3
_FRAME = 0.10
_HAIR_LENGTH, _HAIR_FILL, _HAIRS = 0.14, 0.25, 2
_INK_SHARE, _PATCH_SHARE = 0.006, 0.02
_INK_BLUER, _INK_DARKER = 10.0, 3.0
_SATURATED = 90
_MIN_YELLOW = 3.0
_MIN_LESION_SHARE, _MAX_LESION_SHARE = 0.01, 0.60
_TICK_LAGS = range(4, 25)
_TICK_CORRELATION, _TICKS, _TICK_ENERGY = 0.55, 6, 6.0
_MIN_SKIN_PX = 400

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Appearance:
    """What one picture shows besides its lesion."""

    dark_corners: bool
    hair: bool
    ink: bool
    ruler: bool
    patches: bool
    ita_degrees: float
    """Individual typology angle of the skin around the lesion; NaN if it cannot be estimated."""
    frame: tuple[float, ...]
    """Mean and standard deviation of CIE L*, a*, b* in the outer tenth."""


ARTEFACTS = ("dark_corners", "hair", "ink", "ruler", "patches")


def measure_appearance(pixels: Pixels) -> Appearance:
    """Measure one picture.

    Args:
        pixels: (SIDE_PX, SIDE_PX, 3), RGB.
    """
    grey = _grey(pixels)
    corners = dark_corner_mask(grey)
    lesion = _dilate(lesion_mask(pixels), 0.03)
    around = ~lesion & ~corners
    lab = _lab(pixels)
    patch = _large_regions(_foreign_colour(pixels) & around)
    ink = _not_touching(_bluer_and_darker(lab, around) & ~patch, lesion)
    foreign = ink | patch
    dark_lines = _dark_lines(grey)
    frame = lab[_frame_mask(grey.shape)]
    return Appearance(
        dark_corners=_has_dark_corners(grey),
        hair=_has_hair(dark_lines, around & ~_dilate(foreign, 0.02)),
        ink=float(ink.mean()) > _INK_SHARE,
        ruler=_has_ruler(dark_lines * around),
        patches=bool(patch.any()),
        ita_degrees=ita_degrees(lab, around & ~_dilate(foreign, 0.02) & (dark_lines < 12)),
        frame=tuple(float(value) for value in (*frame.mean(axis=0), *frame.std(axis=0))),
    )


def lesion_mask(pixels: Pixels) -> Mask:
    """Where the lesion probably is: the dark region nearest to the middle, by Otsu's threshold.

    Deliberately crude: no model, no training. If nothing of a plausible size is found, it returns a disc over
    the middle quarter of the area, since photographers aim at the lesion.

    Args:
        pixels: (side, side, 3), RGB.
    """
    side = pixels.shape[0]
    grey = _grey(pixels)
    blurred = cv2.GaussianBlur(grey, (0, 0), side / 60)
    dark = dark_corner_mask(grey)
    bright = np.where(dark, np.uint8(np.median(blurred[~dark]) if (~dark).any() else 128), blurred)
    _, below = cv2.threshold(bright, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(below)
    rows, columns = np.mgrid[:side, :side]
    best, best_weight = 0, 0.0
    for number in range(1, count):
        area = stats[number, cv2.CC_STAT_AREA] / side**2
        distance = float(np.hypot(*(centres[number] / side - 0.5)))
        weight = area * max(0.0, 1 - 2 * distance)
        if _MIN_LESION_SHARE <= area <= _MAX_LESION_SHARE and weight > best_weight:
            best, best_weight = number, weight
    if best:
        found: Mask = labels == best
        return found
    disc: Mask = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < side**2 / 4 / np.pi
    return disc


def dark_corner_mask(grey: Pixels) -> Mask:
    """The dark region that touches the corners: the edge of the field of view."""
    level = max(20.0, 0.35 * float(np.median(grey)))
    _, labels = cv2.connectedComponents((grey < level).astype(np.uint8))
    corners = {int(labels[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    return np.isin(labels, list(corners))


def ita_degrees(lab: NDArray[np.float32], skin: Mask) -> float:
    """Individual typology angle, arctan((L* - 50) / b*) in degrees (Chardon 1991), of the median skin pixel.

    NaN if too little skin is visible, or if it is not yellow: then the camera's white balance is off, as in
    much dermoscopy, and the angle would say nothing about the skin.

    Args:
        lab: CIE L*, a*, b*, shape (side, side, 3).
        skin: pixels that are probably skin.
    """
    if int(skin.sum()) < _MIN_SKIN_PX:
        return float("nan")
    lightness, _, yellow = np.median(lab[skin], axis=0)
    if yellow < _MIN_YELLOW:
        return float("nan")
    return float(np.degrees(np.arctan2(lightness - 50, yellow)))


def _grey(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _lab(pixels: Pixels) -> NDArray[np.float32]:
    """CIE L*, a*, b* under D65."""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _dark_lines(grey: Pixels) -> Pixels:
    """Parts darker than their surroundings and narrower than nine pixels."""
    return np.asarray(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, np.ones((9, 9), np.uint8)), dtype=np.uint8)


def _has_dark_corners(grey: Pixels) -> bool:
    """At least three corners are much darker than the picture's median."""
    side = grey.shape[0]
    edge = max(2, round(_CORNER * side))
    middle = float(np.median(grey))
    corners = (grey[:edge, :edge], grey[:edge, -edge:], grey[-edge:, :edge], grey[-edge:, -edge:])
    return sum(float(np.median(corner)) < _CORNER_DARK * middle for corner in corners) >= _CORNERS


def _has_hair(dark_lines: Pixels, around: Mask) -> bool:
    """Long thin dark lines on the skin, by black-hat transform (Lee 1997)."""
    side = dark_lines.shape[0]
    lines = ((dark_lines > 18) & around).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    width, height = stats[1:count, cv2.CC_STAT_WIDTH], stats[1:count, cv2.CC_STAT_HEIGHT]
    area = stats[1:count, cv2.CC_STAT_AREA]
    length = np.maximum(width, height)
    thin = area < _HAIR_FILL * length * side * _HAIR_LENGTH
    return int(((length >= _HAIR_LENGTH * side) & thin).sum()) >= _HAIRS


def _foreign_colour(pixels: Pixels) -> Mask:
    """Saturated yellow-green to violet: neither skin nor blood. OpenCV's hue runs from 0 to 179."""
    hue, saturation, value = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    return np.asarray((hue > 35) & (hue < 155) & (saturation > _SATURATED) & (value > 40))


def _bluer_and_darker(lab: NDArray[np.float32], around: Mask) -> Mask:
    """Ink: darker than the picture's own skin, and bluer than that skin would be if it were as dark.

    White balance shifts both alike. Things that are merely dark, such as hair, lose yellow along with light.
    """
    if not around.any():
        return around
    lightness, _, yellow = np.median(lab[around], axis=0)
    expected = yellow * lab[..., 0] / max(float(lightness), 1.0)
    found: Mask = around & (expected - lab[..., 2] > _INK_BLUER) & (lightness - lab[..., 0] > _INK_DARKER)
    return found


def _not_touching(mask: Mask, lesion: Mask) -> Mask:
    """The regions that do not touch the lesion: blue in the lesion may reach beyond the crude mask."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8))
    touching = np.unique(labels[_dilate(lesion, 0.01) & mask])
    return mask & ~np.isin(labels, touching)


def _large_regions(foreign: Mask) -> Mask:
    """Compact, large regions of a foreign colour: a patch, not a line of ink."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(foreign.astype(np.uint8))
    area = stats[:, cv2.CC_STAT_AREA]
    full = area > 0.5 * stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
    keep = full & (area > _PATCH_SHARE * foreign.size)
    keep[0] = False
    return np.asarray(keep[labels] if count else foreign)


def _has_ruler(dark_lines: Pixels) -> bool:
    """Marks at equal distances along one of eight strips parallel to an edge."""
    side = dark_lines.shape[0]
    strip = side // 8
    for start in (0, strip, side - 2 * strip, side - strip):
        for lines in (dark_lines[start : start + strip], dark_lines[:, start : start + strip].T):
            if _is_periodic(lines.astype(np.float32).mean(axis=0)):
                return True
    return False


def _is_periodic(profile: NDArray[np.float32]) -> bool:
    """Whether the autocorrelation peaks at some distance and again at twice that."""
    kernel = np.ones(25, np.float32) / 25
    wave = profile - np.convolve(np.pad(profile, 12, mode="edge"), kernel, mode="valid")
    energy = float(wave @ wave)
    if energy < _TICK_ENERGY * profile.size:
        return False
    spectrum = np.abs(np.fft.rfft(wave, 2 * wave.size)) ** 2
    correlation = np.fft.irfft(spectrum)[: wave.size] / energy
    correlation /= 1 - np.arange(wave.size) / wave.size  # fewer pairs at longer distances
    for lag in _TICK_LAGS:
        near = correlation[lag - 1 : lag + 2]
        twice = correlation[2 * lag - 1 : 2 * lag + 2].max()
        if near.argmax() == 1 and near[1] > _TICK_CORRELATION and twice > _TICK_CORRELATION:
            return int((wave > wave.std()).sum()) >= _TICKS
    return False


def _frame_mask(shape: tuple[int, ...]) -> Mask:
    edge = round(_FRAME * shape[0])
    mask = np.ones(shape, dtype=np.bool_)
    mask[edge:-edge, edge:-edge] = False
    return mask


def _dilate(mask: Mask, share: float) -> Mask:
    size = 2 * round(share * mask.shape[0]) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)

"""Where in the photograph the lesion seems to be, by a coarse search for the darker part. Imports numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Of the copy that is looked at."""

_AXIS = np.arange(SIDE) - (SIDE - 1) / 2
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_SEEN = np.hypot(_X, _Y) <= SIDE * 0.56
"""Corners are left out: a dermatoscope's are black."""
_PLANE = np.stack([np.ones(_SEEN.sum()), _X[_SEEN], _Y[_SEEN]], axis=1)
_SEEN_AT = np.flatnonzero(_SEEN)
_EVEN = np.linalg.pinv(_PLANE)
_PLACES = _PLANE[:, 1:] / (SIDE / 2)
_MOMENTS = np.stack(
    [np.ones(_SEEN.sum()), *_PLANE[:, 1:].T, *(_PLANE[:, 1:] ** 2).T, _PLANE[:, 1:].prod(axis=1)]
)


@dataclass(frozen=True, slots=True)
class Framing:
    """The darker part of a photograph, after the slope of the light is taken off."""

    step: float
    """How much darker it is than the rest, as a share of the rest's level."""
    offset: float
    """How far its centre lies from the middle; 1 is half a side."""


def find(green: NDArray[np.uint8]) -> Framing:
    """Split a small copy in two by Otsu's threshold (IEEE Trans. SMC 9, 62-66, 1979).

    Blood and pigment both absorb green, so a lesion of either kind is darker there. Shading looks like a
    lesion too, hence the plane: it is fitted twice, the second time all but without what the first found
    dark.

    Sums of 64-bit floats, so two processors may differ in the last digits. Nothing is refused by them.

    Args:
        green: (32, 32), levels 0 to 255.
    """
    levels = green.ravel().take(_SEEN_AT).astype(np.float64)
    rest = levels - _PLANE @ (_EVEN @ levels)
    spread = math.sqrt(rest @ rest / rest.size)  # about a plane, so about nothing
    flat = levels - _plane(levels, np.where(rest < -0.5 * spread, 0.1, 1.0))
    dark = _darker(np.rint(flat).astype(np.intp))
    number = int(dark.sum())
    if number == 0:
        return Framing(step=0.0, offset=0.0)
    others = levels.size - number
    step = (flat.sum() - flat @ dark) / others - flat @ dark / number
    x, y = dark @ _PLACES / number
    light = (levels.sum() - levels @ dark) / others
    return Framing(step=float(step) / max(1.0, float(light)), offset=math.hypot(x, y))


def _plane(levels: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The plane of least weighted squares, by Cramer's rule: three unknowns need no library's solver."""
    n, x, y, xx, yy, xy = (_MOMENTS @ weights).tolist()
    s, sx, sy = ((levels * weights) @ _PLANE).tolist()
    # Cofactors of the symmetric matrix ((n, x, y), (x, xx, xy), (y, xy, yy)).
    a, b, c = xx * yy - xy * xy, y * xy - x * yy, x * xy - y * xx
    d, e, f = n * yy - y * y, x * y - n * xy, n * xx - x * x
    determinant = n * a + x * b + y * c
    solved = (a * s + b * sx + c * sy, b * s + d * sx + e * sy, c * s + e * sx + f * sy)
    return np.asarray(_PLANE @ (np.array(solved) / determinant))


def _darker(levels: NDArray[np.intp]) -> NDArray[np.float64]:
    """1.0 where it is darker than the threshold, else 0.0; all 0.0 if there is but one level."""
    lowest = levels.min()
    counts = np.bincount(levels - lowest)
    below = counts.cumsum()[:-1]  # by threshold; at least one and never all
    sums = (counts * np.arange(counts.size)).cumsum()
    if below.size == 0:
        return np.zeros(levels.size)
    between = (sums[-1] * below / levels.size - sums[:-1]) ** 2 / (below * (levels.size - below))
    return np.asarray(levels <= lowest + np.argmax(between), np.float64)

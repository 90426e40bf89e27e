"""Where in the photograph the lesion seems to be: a coarse search for the darker part. Imports numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Side of the reduced copy that is searched."""

_AXIS = np.arange(SIDE) - (SIDE - 1) / 2
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_SEEN = np.hypot(_X, _Y) <= SIDE * 0.56
"""The corners are left out: a dermatoscope's are black."""
_PLANE = np.stack([np.ones(_SEEN.sum()), _X[_SEEN], _Y[_SEEN]], axis=1)
_SEEN_AT = np.flatnonzero(_SEEN)
_EVEN = np.linalg.pinv(_PLANE)
_PLACES = _PLANE[:, 1:] / (SIDE / 2)
_MOMENTS = np.stack(
    [np.ones(_SEEN.sum()), *_PLANE[:, 1:].T, *(_PLANE[:, 1:] ** 2).T, _PLANE[:, 1:].prod(axis=1)]
)


@dataclass(frozen=True, slots=True)
class Framing:
    """The darker part of a photograph, after removing the lighting gradient."""

    step: float
    """How much darker it is than the rest, as a share of the rest's level."""
    offset: float
    """Distance of its centre from the middle; 1 is half a side."""


def find(green: NDArray[np.uint8]) -> Framing:
    """Split a reduced copy in two by Otsu's threshold (IEEE Trans. SMC 9, 62-66, 1979).

    Blood and pigment both absorb green, so a lesion of either kind is darker there. Shading looks like a
    lesion too, so a plane is fitted and subtracted. It is fitted twice; the second time, what the first fit
    found dark has little weight.

    The sums are 64-bit floats, so two processors may differ in the last digits. Nothing is refused by them.

    Args:
        green: (32, 32), levels 0 to 255.
    """
    levels = green.ravel().take(_SEEN_AT).astype(np.float64)
    rest = levels - _PLANE @ (_EVEN @ levels)
    spread = math.sqrt(rest @ rest / rest.size)  # residuals of a plane have mean zero
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
    """Weighted least-squares plane, by Cramer's rule: three unknowns need no solver from a library."""
    n, x, y, xx, yy, xy = (_MOMENTS @ weights).tolist()
    s, sx, sy = ((levels * weights) @ _PLANE).tolist()
    # Cofactors of the symmetric matrix ((n, x, y), (x, xx, xy), (y, xy, yy)).
    a, b, c = xx * yy - xy * xy, y * xy - x * yy, x * xy - y * xx
    d, e, f = n * yy - y * y, x * y - n * xy, n * xx - x * x
    determinant = n * a + x * b + y * c
    solved = (a * s + b * sx + c * sy, b * s + d * sx + e * sy, c * s + e * sx + f * sy)
    return np.asarray(_PLANE @ (np.array(solved) / determinant))


def _darker(levels: NDArray[np.intp]) -> NDArray[np.float64]:
    """1.0 for what is darker than the threshold, else 0.0; all 0.0 if there is only one level."""
    lowest = levels.min()
    counts = np.bincount(levels - lowest)
    below = counts.cumsum()[:-1]  # by threshold; at least one pixel, never all
    sums = (counts * np.arange(counts.size)).cumsum()
    if below.size == 0:
        return np.zeros(levels.size)
    between = (sums[-1] * below / levels.size - sums[:-1]) ** 2 / (below * (levels.size - below))
    return np.asarray(levels <= lowest + np.argmax(between), np.float64)

"""Where in the photograph the lesion seems to be: a coarse search for the darker part. Imports numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 32
"""Side of the reduced copy that is searched."""

_AXIS = np.arange(SIDE_PX) - (SIDE_PX - 1) / 2
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_DISC = np.hypot(_X, _Y) <= SIDE_PX * 0.56
"""The corners are left out: a dermatoscope's are black."""
_PLANE_DESIGN = np.stack([np.ones(_DISC.sum()), _X[_DISC], _Y[_DISC]], axis=1)
_DISC_INDICES = np.flatnonzero(_DISC)
_PLANE_PINV = np.linalg.pinv(_PLANE_DESIGN)
_RELATIVE_POSITIONS = _PLANE_DESIGN[:, 1:] / (SIDE_PX / 2)
_MOMENTS = np.stack(
    [
        np.ones(_DISC.sum()),
        *_PLANE_DESIGN[:, 1:].T,
        *(_PLANE_DESIGN[:, 1:] ** 2).T,
        _PLANE_DESIGN[:, 1:].prod(axis=1),
    ]
)


@dataclass(frozen=True, slots=True)
class Framing:
    """The darker part of a photograph, after removing the lighting gradient."""

    step: float
    """How much darker it is than the rest, as a share of the rest's level."""
    offset: float
    """Distance of its centre from the middle; 1 is half a side."""


def locate_lesion(green: NDArray[np.uint8]) -> Framing:
    """Split a reduced copy in two by Otsu's threshold (IEEE Trans. SMC 9, 62-66, 1979).

    Blood and pigment both absorb green, so a lesion of either kind is darker there. Shading looks like a
    lesion too, so a plane is fitted and subtracted. It is fitted twice; the second time, what the first fit
    found dark has little weight.

    The sums are 64-bit floats, so two processors may differ in the last digits. Nothing is refused by them.

    Args:
        green: (32, 32), levels 0 to 255.
    """
    levels = green.ravel().take(_DISC_INDICES).astype(np.float64)
    residuals = levels - _PLANE_DESIGN @ (_PLANE_PINV @ levels)
    spread = math.sqrt(residuals @ residuals / residuals.size)  # residuals of a plane have mean zero
    flat = levels - _fit_plane(levels, np.where(residuals < -0.5 * spread, 0.1, 1.0))
    dark = _otsu_mask(np.rint(flat).astype(np.intp))
    dark_count = int(dark.sum())
    if dark_count == 0:
        return Framing(step=0.0, offset=0.0)
    lighter_count = levels.size - dark_count
    step = (flat.sum() - flat @ dark) / lighter_count - flat @ dark / dark_count
    x, y = dark @ _RELATIVE_POSITIONS / dark_count
    light = (levels.sum() - levels @ dark) / lighter_count
    return Framing(step=float(step) / max(1.0, float(light)), offset=math.hypot(x, y))


def _fit_plane(levels: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted least-squares plane, by Cramer's rule: three unknowns need no solver from a library."""
    n, x, y, xx, yy, xy = (_MOMENTS @ weights).tolist()
    s, sx, sy = ((levels * weights) @ _PLANE_DESIGN).tolist()
    # Cofactors of the symmetric matrix ((n, x, y), (x, xx, xy), (y, xy, yy)).
    a, b, c = xx * yy - xy * xy, y * xy - x * yy, x * xy - y * xx
    d, e, f = n * yy - y * y, x * y - n * xy, n * xx - x * x
    determinant = n * a + x * b + y * c
    solved = (a * s + b * sx + c * sy, b * s + d * sx + e * sy, c * s + e * sx + f * sy)
    return np.asarray(_PLANE_DESIGN @ (np.array(solved) / determinant))


def _otsu_mask(levels: NDArray[np.intp]) -> NDArray[np.float64]:
    """1.0 for what is darker than the threshold, else 0.0; all 0.0 if there is only one level."""
    lowest = levels.min()
    counts = np.bincount(levels - lowest)
    below = counts.cumsum()[:-1]  # by threshold; at least one pixel, never all
    sums = (counts * np.arange(counts.size)).cumsum()
    if below.size == 0:
        return np.zeros(levels.size)
    between_class_variance = (sums[-1] * below / levels.size - sums[:-1]) ** 2 / (
        below * (levels.size - below)
    )
    return np.asarray(levels <= lowest + np.argmax(between_class_variance), np.float64)

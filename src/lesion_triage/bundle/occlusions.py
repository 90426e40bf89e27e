"""Detects what covers the skin: hair and ink. Imports numpy."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_HAIR_HALF_WIDTH = 3 / 128
"""Half the greatest width of a line, as a share of the side."""
_HAIR_DEPTH = 50
"""Grey levels by which a hair is darker than the skin on both sides; a pigment network is paler."""
_INK_SHIFT = 40
"""Levels by which blue minus red exceeds its median over the outer part of the picture."""
_INK_BLUE = 10
"""Least excess of blue over red, in levels."""
_INK_LIGHT = 50
"""Least level of blue: anything darker is as likely to be a blue-black lesion."""

_CENTRE_RADIUS = 0.3
"""Radius of the central disc, as a share of the side."""


def hair_share(grey: NDArray[np.int16]) -> float:
    """Share of the picture under dark, thin lines: darker than both sides, across any of four directions.

    A fast approximation of DullRazor's black top-hat (Lee et al., Comput. Biol. Med. 27, 533-543, 1997).
    Fair hair is not detected.

    Args:
        grey: (n, n), levels 0 to 255.
    """
    side = grey.shape[0]
    arm = max(1, round(_HAIR_HALF_WIDTH * side))
    middle = grey[arm:-arm, arm:-arm]
    depth = np.zeros_like(middle)
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one, other = (
            grey[arm + sign * down * arm :, arm + sign * across * arm :][: side - 2 * arm, : side - 2 * arm]
            for sign in (1, -1)
        )
        np.maximum(depth, np.minimum(one, other) - middle, out=depth)
    return int(np.count_nonzero(depth > _HAIR_DEPTH)) / depth.size


def ink_share(colours: NDArray[np.float32]) -> float:
    """Share of the outer part in the colours of skin markers: blue or violet, relative to its median colour.

    Ink marks surround a lesion; blue in the middle is as likely to be the lesion itself. Black, red and
    brown pens have colours that lesions have too, and are not detected.

    Args:
        colours: (3, n, n), RGB, levels 0 to 255.
    """
    red, green, blue = colours.reshape(3, -1).take(_outer_pixel_indices(colours.shape[1]), axis=1)
    shift = blue - red
    bluish = (shift > _INK_BLUE) & (blue > green) & (blue >= _INK_LIGHT)
    if not bluish.any():  # true of most photographs, and the median is expensive
        return 0.0
    marked = bluish & (shift > np.median(shift) + _INK_SHIFT)
    return float(np.count_nonzero(marked) / shift.size)


@functools.cache
def _outer_pixel_indices(side: int) -> NDArray[np.intp]:
    """Indices of the pixels outside the central disc, where a blue lesion may be."""
    axis = np.arange(side) - (side - 1) / 2
    return np.flatnonzero(np.hypot(axis[:, None], axis) > _CENTRE_RADIUS * side)

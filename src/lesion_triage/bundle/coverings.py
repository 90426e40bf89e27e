"""What lies over the skin: hair and ink. Imports numpy."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_HAIR_ARM = 3 / 128
"""Half the width that a line may have, as a share of the side."""
_HAIR_DEPTH = 50
"""Grey levels by which a hair is darker than the skin on both its sides; a net of pigment is paler."""
_INK_SHIFT = 40
"""Levels by which blue outweighs red more than it does in the picture at large."""
_INK_BLUE = 10
"""Levels by which blue outweighs red at least."""
_INK_LIGHT = 50
"""Least level of blue: what is darker is as likely to be a blue-black lesion."""

_MIDDLE = 0.3
"""Radius of the middle, as a share of the side."""


def hair_share(grey: NDArray[np.int16]) -> float:
    """Share of the picture under dark, thin lines: darker than both sides, across any of four directions.

    A quick cousin of the black top-hat of DullRazor (Lee et al., Comput. Biol. Med. 27, 533-543, 1997).
    Fair hair is not seen.

    Args:
        grey: (n, n), levels 0 to 255.
    """
    side = grey.shape[0]
    arm = max(1, round(_HAIR_ARM * side))
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
    """Share of the outer part in the colours of skin markers: blue and violet, against its usual colour.

    Marks stand around a lesion; what is blue in the middle is as likely to be the lesion. Black, red and
    brown pens have colours that lesions have too, and are not seen.

    Args:
        colours: (3, n, n), RGB, levels 0 to 255.
    """
    red, green, blue = colours.reshape(3, -1).take(_outer(colours.shape[1]), axis=1)
    shift = blue - red
    bluish = (shift > _INK_BLUE) & (blue > green) & (blue >= _INK_LIGHT)
    if not bluish.any():  # most photographs, and the median is dear
        return 0.0
    marked = bluish & (shift > np.median(shift) + _INK_SHIFT)
    return float(np.count_nonzero(marked) / shift.size)


@functools.cache
def _outer(side: int) -> NDArray[np.intp]:
    """Places outside the middle, where lesions are that may be blue themselves."""
    axis = np.arange(side) - (side - 1) / 2
    return np.flatnonzero(np.hypot(axis[:, None], axis) > _MIDDLE * side)

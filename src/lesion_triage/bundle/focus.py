"""How sharp a photograph is at its sharpest part. Imports numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 8
"""Blocks per side; 64 in all."""
_SHARPER_BLOCKS = 6
"""Number of blocks that may be sharper than the measure: a tenth of the picture, not one hair or label."""
_MIN_VARIATION = (0.3, 3.0)
"""Least mean squared difference that counts as structure: in the darkest picture, and at medium brightness.
In between it scales with the square of the brightness, as contrast does. Otherwise the texture of very dark
skin, a level or less, would count as nothing and the picture as blurred."""
_MEDIUM_LEVEL = 128
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
_DISTANCES_PX = (1, 2, 4)
_SHIFTS = tuple((down * reach, across * reach) for down, across in _DIRECTIONS for reach in _DISTANCES_PX)


def sharpness(grey: NDArray[np.int16]) -> float:
    """Share of the variation over four pixels that is present over two, with noise removed. About 0 to 1.

    With D(h) the mean squared difference of grey levels h pixels apart, this is (D(2) - D(1)) /
    (D(4) - D(1)). Sensor noise adds the same to all three and cancels. Contrast cancels too, so a pale
    lesion, or any lesion on dark skin, is not mistaken for a blurred one.

    Reference values: on a smooth ramp, which is what blur leaves, D grows as the square of h and the measure
    is 3/15 = 0.20. If power falls with the square of the frequency, as in most scenes, D grows as h: 0.33.
    Fine texture and sharp edges give more.

    It is measured in 8 x 8 blocks, so that one large dark lesion does not dominate, and the seventh largest
    counts: something must be in focus, not everything. Motion blur affects one direction only, so the lowest
    of four directions is returned.

    Integer arithmetic up to one division, so the result is the same on every processor.

    Args:
        grey: (n, n), n from 16 to 1024, levels 0 to 255.
    """
    light = int(grey.sum(dtype=np.int64)) / (grey.size * _MEDIUM_LEVEL)
    darkest, medium = _MIN_VARIATION
    side = _measured_side_px(grey)
    floor = min(max(darkest, medium * light * light), medium) * (side // _BLOCKS) ** 2
    near, middle, far = np.moveaxis(_squared_differences(grey, side), 1, 0)
    # Without structure, noise must not look sharp.
    shares = (middle - near) / np.maximum(far - near, floor)
    shares.partition(_BLOCKS * _BLOCKS - 1 - _SHARPER_BLOCKS, axis=1)
    return float(shares[:, _BLOCKS * _BLOCKS - 1 - _SHARPER_BLOCKS].min())


def _measured_side_px(grey: NDArray[np.int16]) -> int:
    return int((grey.shape[0] - 4) // _BLOCKS * _BLOCKS)


def _squared_differences(grey: NDArray[np.int16], side: int) -> NDArray[np.int64]:
    """Sum of squared differences by direction, distance and block, (4, 3, 64); always over the same blocks.

    It makes few calls on one array instead of many on small ones: right after the network, which evicts the
    processor's caches, the calls are what costs time.
    """
    margin, height = (grey.shape[0] - side) // 2, side // _BLOCKS
    differences = np.empty((len(_DIRECTIONS) * len(_DISTANCES_PX), side, side), np.int16)
    for out, (down, across) in zip(differences, _SHIFTS, strict=True):
        top, left = margin - abs(down) // 2, margin - across // 2
        first = grey[top : top + side, left : left + side]
        np.subtract(first, grey[top + down :, left + across :][:side, :side], out=out)
    # uint16 holds 255 squared, uint32 the sum over 128 x 128 pixels.
    squares = np.multiply(differences, differences, out=differences).view(np.uint16)
    rows = squares.reshape(-1, _BLOCKS, height, side).sum(axis=2, dtype=np.uint32)
    blocks: NDArray[np.int64] = rows.reshape(-1, _BLOCKS, _BLOCKS, height).sum(axis=3, dtype=np.int64)
    return blocks.reshape(len(_DIRECTIONS), len(_DISTANCES_PX), _BLOCKS * _BLOCKS)

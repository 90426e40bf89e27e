"""How sharp a photograph is where it is sharpest. Imports numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 8
"""A side; 64 in all."""
_RANK = 6
"""So many blocks may be sharper than the measure: a tenth of the picture, not one hair or one label."""
_LEAST_VARIATION = (0.3, 3.0)
"""Mean squared difference from which on there is something to see, in the darkest picture and in one of
medium brightness. In between it goes with the square of the light, as contrast does: otherwise the texture
of very dark skin, a level or less, would count as nothing and the picture as blurred."""
_MEDIUM = 128
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
_REACHES = (1, 2, 4)
_SHIFTS = tuple((down * reach, across * reach) for down, across in _STEPS for reach in _REACHES)


def sharpness(grey: NDArray[np.int16]) -> float:
    """Share of the variation over four pixels that is there over two, once noise is taken off. About 0 to 1.

    With D(h) the mean squared difference of grey levels h pixels apart, this is (D(2) - D(1)) /
    (D(4) - D(1)). Noise of the sensor adds the same to all three and so drops out; contrast does too, so that
    a pale lesion, or any lesion on dark skin, is not taken for a blurred one. Where all is a smooth ramp,
    which is what blur leaves, D grows as the square of h and the measure is 3/15 = 0.20. A picture whose
    power falls with the square of the frequency, as that of most scenes does, has D growing as h: 0.33.
    Fine texture and sharp edges give more.

    It is taken in 8 x 8 blocks, so that one large dark lesion does not speak for the picture, and the
    seventh largest counts: something must be in focus, not everything. A hand that moves blurs one
    direction only, so the lowest of four directions is the answer.

    Integers up to one division, so it is the same number on every processor.

    Args:
        grey: (n, n), n from 16 to 1024, levels 0 to 255.
    """
    light = int(grey.sum(dtype=np.int64)) / (grey.size * _MEDIUM)
    darkest, medium = _LEAST_VARIATION
    side = _side(grey)
    floor = min(max(darkest, medium * light * light), medium) * (side // _BLOCKS) ** 2
    near, middle, far = np.moveaxis(_variations(grey, side), 1, 0)
    # Where there is nothing to see, noise must not look sharp.
    shares = (middle - near) / np.maximum(far - near, floor)
    shares.partition(_BLOCKS * _BLOCKS - 1 - _RANK, axis=1)
    return float(shares[:, _BLOCKS * _BLOCKS - 1 - _RANK].min())


def _side(grey: NDArray[np.int16]) -> int:
    return int((grey.shape[0] - 4) // _BLOCKS * _BLOCKS)


def _variations(grey: NDArray[np.int16], side: int) -> NDArray[np.int64]:
    """Sum of squared differences by direction, distance and block, (4, 3, 64); always of the same blocks.

    Few calls on one array, and not many on small ones: beside a network, which empties the processor's
    caches, it is the calls that cost.
    """
    rim, height = (grey.shape[0] - side) // 2, side // _BLOCKS
    differences = np.empty((len(_STEPS) * len(_REACHES), side, side), np.int16)
    for out, (down, across) in zip(differences, _SHIFTS, strict=True):
        top, left = rim - abs(down) // 2, rim - across // 2
        first = grey[top : top + side, left : left + side]
        np.subtract(first, grey[top + down :, left + across :][:side, :side], out=out)
    # 16 bits without a sign hold the square of 255, 32 those of 128 x 128 pixels.
    squares = np.multiply(differences, differences, out=differences).view(np.uint16)
    rows = squares.reshape(-1, _BLOCKS, height, side).sum(axis=2, dtype=np.uint32)
    blocks: NDArray[np.int64] = rows.reshape(-1, _BLOCKS, _BLOCKS, height).sum(axis=3, dtype=np.int64)
    return blocks.reshape(len(_STEPS), len(_REACHES), _BLOCKS * _BLOCKS)

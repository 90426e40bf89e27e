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
    floor = min(max(darkest, medium * light * light), medium) * (_side(grey) // _BLOCKS) ** 2
    return min(_in_direction(grey, floor, *step) for step in _STEPS)


def _in_direction(grey: NDArray[np.int16], floor: float, down: int, across: int) -> float:
    near, middle, far = (_variation(grey, down * reach, across * reach) for reach in (1, 2, 4))
    # Where there is nothing to see, noise must not look sharp.
    shares = (middle - near) / np.maximum(far - near, floor)
    return float(np.sort(shares, axis=None)[-1 - _RANK])


def _side(grey: NDArray[np.int16]) -> int:
    return int((grey.shape[0] - 4) // _BLOCKS * _BLOCKS)


def _variation(grey: NDArray[np.int16], down: int, across: int) -> NDArray[np.int32]:
    """Sum of squared differences in each block, (8, 8); the blocks are the same at every distance."""
    side = _side(grey)
    rim = (grey.shape[0] - side) // 2
    span = (rim - abs(down) // 2, rim - across // 2)
    first = grey[span[0] : span[0] + side, span[1] : span[1] + side]
    second = grey[span[0] + down :, span[1] + across :][:side, :side]
    difference = np.subtract(first, second, dtype=np.int32)
    height = side // _BLOCKS
    # 32 bits hold 128 x 128 squares of 255.
    rows = np.square(difference, out=difference).reshape(_BLOCKS, height, side).sum(axis=1, dtype=np.int32)
    blocks: NDArray[np.int32] = rows.reshape(_BLOCKS, _BLOCKS, height).sum(axis=2, dtype=np.int32)
    return blocks

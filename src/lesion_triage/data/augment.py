"""Random augmentation of training pictures: the one file that imports albumentations.

It maps uint8 RGB to uint8 RGB: normalisation stays in the graph, all other pixel rules in bundle.pixels.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# On import albumentations checks for a newer version over the network, unless told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A  # noqa: N812 - the library's own customary name
import cv2

cv2.setNumThreads(0)  # the loader's processes provide the parallelism; OpenCV's threads would compete

Level = Literal["none", "flips", "standard", "strong"]


def augmentation(level: Level, size_px: int) -> Augment:
    """A function (picture, seed) -> square picture of side ``size_px``.

    The result depends on its arguments alone, so it is not affected by the order of the pictures, the number
    of loader processes or a resumed run.

    Args:
        level: ``none`` only resizes. ``flips`` adds the eight symmetries of the square (skin has no upright).
            ``standard`` adds crops that keep at least 60 % of the area and vary the aspect ratio by a third
            (the pixel path stretches), slight rotations, light and colour, and blanked patches. ``strong``
            crops down to 40 %, rotates, shears and recolours more, and adds the effects of cameras and
            messengers: blur, noise, compression, lens distortion (the families of steps of the winner of
            SIIM-ISIC 2020, Ha, Liu and Liu, arXiv:2010.05351; the strengths are ours).
        size_px: side of the result.
    """
    return Augment(level, size_px)


class Augment:
    """See ``augmentation``. Pickled for loader processes as its two arguments."""

    def __init__(self, level: Level, size_px: int) -> None:
        self._init_args = level, size_px
        self._transforms = _transforms(level, size_px)
        # Seeding each step alike, as Compose.set_random_seed does, would give all the same first numbers:
        # strong crops would always come with strong colour. So all steps share two streams.
        self._random = random.Random()
        self._bits = np.random.PCG64()
        for step in self._transforms:
            step.set_random_state(np.random.Generator(self._bits), self._random)

    def __reduce__(self) -> tuple[Any, ...]:
        return Augment, self._init_args

    def __call__(self, picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """The picture, augmented as determined by the seed."""
        self._random.seed(seed)
        self._bits.state = np.random.PCG64(seed).state
        result = picture
        for step in self._transforms:  # without Compose, whose checks are for boxes and masks
            result = step(image=result)["image"]
        return np.require(result, requirements=["C", "W"])  # a flip may be a view of the cache


def _identity(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture


_SYMMETRIES: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    "e": _identity,
    "r90": lambda picture: cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE),
    "r180": lambda picture: cv2.flip(picture, -1),
    "r270": lambda picture: cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE),
    "v": lambda picture: cv2.flip(picture, 0),
    "h": lambda picture: cv2.flip(picture, 1),
    "t": cv2.transpose,
    "hvt": lambda picture: cv2.transpose(cv2.flip(picture, -1)),
}


class _SquareSymmetry(A.SquareSymmetry):  # type: ignore[misc]
    """The library's step, done with OpenCV: the same pixels, faster than copying a strided numpy view."""

    def apply(self, img: NDArray[np.uint8], group_element: str, **params: Any) -> Any:
        """Apply one of the eight symmetries."""
        return _SYMMETRIES[group_element](img)


def _transforms(level: Level, size_px: int) -> list[Any]:
    area = cv2.INTER_AREA
    if level in ("none", "flips"):
        resize = A.Resize(size_px, size_px, interpolation=area)
        return [resize] if level == "none" else [resize, _SquareSymmetry(p=1.0)]
    side, edge = (size_px, size_px), {"border_mode": cv2.BORDER_REFLECT_101}
    if level == "standard":
        return [
            A.RandomResizedCrop(side, scale=(0.6, 1.0), ratio=(3 / 4, 4 / 3), interpolation=area),
            _SquareSymmetry(p=1.0),
            A.Affine(rotate=(-30, 30), **edge, p=0.3),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03, p=0.8),
            A.CoarseDropout(
                num_holes_range=(1, 2), hole_height_range=(0.1, 0.25), hole_width_range=(0.1, 0.25), p=0.3
            ),
        ]
    return [
        A.RandomResizedCrop(side, scale=(0.4, 1.0), ratio=(3 / 4, 4 / 3), interpolation=area),
        _SquareSymmetry(p=1.0),
        A.Affine(rotate=(-45, 45), shear=(-8, 8), **edge, p=0.5),
        A.OpticalDistortion(distort_limit=(-0.3, 0.3), **edge, p=0.2),
        A.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, p=0.9),
        A.GaussianBlur(blur_limit=(3, 5), p=0.2),
        A.GaussNoise(std_range=(0.01, 0.06), p=0.2),
        A.ImageCompression(quality_range=(40, 95), p=0.3),
        A.CoarseDropout(
            num_holes_range=(1, 3), hole_height_range=(0.1, 0.3), hole_width_range=(0.1, 0.3), p=0.5
        ),
    ]

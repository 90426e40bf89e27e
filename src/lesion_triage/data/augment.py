"""Random augmentation of training pictures: the one file that imports albumentations.

Takes and gives uint8 RGB, so normalisation stays in the graph and every other pixel rule in bundle.pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# albumentations asks the network for a newer version when it is imported, unless told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A  # noqa: N812 - the library's own customary name
import cv2

cv2.setNumThreads(0)  # the loader's processes are the parallelism; OpenCV's threads would fight them

Level = Literal["none", "flips", "standard"]
Augment = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]


def augmentation(level: Level, size_px: int) -> Augment:
    """A function (picture, seed) -> picture of ``size_px`` square.

    The result depends on its arguments alone, so the order of the pictures, the number of loader
    processes and a resumed run change nothing.

    Args:
        level: ``none`` resizes only; ``flips`` adds the eight symmetries of the square (skin has no
            upright); ``standard`` adds crops that keep at least 60 % of the area and vary the aspect
            by a third (the pixel path stretches), slight turns, light and colour, and blanked patches.
        size_px: side of the result.
    """
    steps: list[Any] = []
    if level == "standard":
        steps.append(
            A.RandomResizedCrop(
                (size_px, size_px), scale=(0.6, 1.0), ratio=(3 / 4, 4 / 3), interpolation=cv2.INTER_AREA
            )
        )
    else:
        steps.append(A.Resize(size_px, size_px, interpolation=cv2.INTER_AREA))
    if level != "none":
        steps.append(A.SquareSymmetry(p=1.0))
    if level == "standard":
        steps += [
            A.Affine(rotate=(-30, 30), border_mode=cv2.BORDER_REFLECT_101, p=0.3),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03, p=0.8),
            A.CoarseDropout(
                num_holes_range=(1, 2), hole_height_range=(0.1, 0.25), hole_width_range=(0.1, 0.25), p=0.3
            ),
        ]
    compose = A.Compose(steps, seed=0)

    def apply(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        # Compose.set_random_seed would give every step the same seed, and with it the same first numbers:
        # strong crops would always come with strong colour. Each step draws from a stream of its own.
        for step, stream in zip(steps, np.random.SeedSequence(seed).generate_state(len(steps)), strict=True):
            step.set_random_seed(int(stream))
        result: NDArray[np.uint8] = compose(image=picture)["image"]
        return np.require(result, requirements=["C", "W"])  # a flip may be a view of the cache

    return apply

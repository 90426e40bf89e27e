"""Skin with a mole, and artefacts drawn on it; needs numpy and Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from lesion_triage.audit.artefacts import SIDE_PX

SKIN, MOLE = (224, 178, 150), (110, 70, 50)


def skin(seed: int = 0, tone: tuple[int, int, int] = SKIN) -> Image.Image:
    """Noisy skin with a mole in the middle."""
    random = np.random.default_rng(seed)
    side = SIDE_PX
    pixels = np.empty((side, side, 3))
    pixels[:] = tone
    y, x = np.mgrid[:side, :side]
    pixels[(y - side / 2) ** 2 + (x - side / 2) ** 2 < 30**2] = MOLE
    pixels += random.normal(0, 4, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def with_ruler(picture: Image.Image) -> Image.Image:
    pen = ImageDraw.Draw(picture)
    for number, x in enumerate(range(10, 185, 9)):
        pen.line([(x, 170), (x, 186 if number % 5 == 0 else 180)], fill=(20, 20, 20), width=1)
    return picture


def with_ink(picture: Image.Image) -> Image.Image:
    ImageDraw.Draw(picture).ellipse([40, 40, 152, 152], outline=(90, 70, 170), width=3)
    return picture


def with_hair(picture: Image.Image) -> Image.Image:
    pen = ImageDraw.Draw(picture)
    for start in (15, 45, 150):
        pen.line([(start, 0), (start + 20, 60), (start + 15, 190)], fill=(30, 20, 15), width=1)
    return picture


def with_dark_corners(picture: Image.Image) -> Image.Image:
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).ellipse([-12, -12, SIDE_PX + 12, SIDE_PX + 12], fill=255)
    return Image.composite(picture, Image.new("RGB", picture.size, (5, 5, 5)), mask)


def with_patches(picture: Image.Image) -> Image.Image:
    ImageDraw.Draw(picture).ellipse([130, 5, 185, 60], fill=(40, 160, 90))
    return picture


PLANTED = {
    "dark_corners": with_dark_corners,
    "hair": with_hair,
    "ink": with_ink,
    "ruler": with_ruler,
    "patches": with_patches,
}

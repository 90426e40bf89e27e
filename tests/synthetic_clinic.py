"""A clinic's folder: drawn pictures whose logit under the tiny graph is known, and the table of outcomes.

Needs numpy and Pillow.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def draw(path: Path, logit: float, number: int) -> None:
    """A picture of which the tiny graph, (red - blue) / 10 - 5, makes about ``logit``; all differ."""
    difference = round(10 * (logit + 5))
    image = Image.new("RGB", (112, 112), (140 + difference // 2, 120, 140 - (difference - difference // 2)))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 55, 111), fill=(100 + difference // 2, 60, 100 - (difference - difference // 2)))
    Image.fromarray(np.asarray(image) + _pattern(number)).save(path)


def _pattern(number: int) -> NDArray[np.uint8]:
    """Squares, half of them brighter and half darker by as much: no two look alike, no mean moves."""
    signs = np.random.default_rng(number).permutation(np.tile((25, 231), 32)).astype(np.uint8)
    return signs.reshape(8, 8).repeat(14, 0).repeat(14, 1)[:, :, np.newaxis]


def write(folder: Path, cases: Iterable[tuple[float, object, dict[str, object]]]) -> Path:
    """Writes ``cases.csv`` and the pictures; each case is (logit, needs_in_person, other columns)."""
    folder.mkdir()
    rows = []
    for number, (logit, needs, columns) in enumerate(cases):
        draw(folder / f"{number}.png", logit, sum(map(ord, folder.name)) + number)
        rows.append({"image": f"{number}.png", "needs_in_person": needs, **columns})
    names = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    return folder / "cases.csv"

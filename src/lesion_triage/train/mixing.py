"""Two pictures in one: mixup and cutmix. Imports torch, numpy and the configuration.

What is drawn depends on (seed, epoch, batch) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lesion_triage.config import Train
from lesion_triage.data.dataset import Example


@dataclass(frozen=True)
class Mix:
    """How the pictures of one batch are mixed; the same in every process that has a part of it."""

    share: float
    """Share of the picture itself in the result."""
    box: tuple[float, float] | None = None
    """cutmix: centre of the rectangle, from 0 to 1, down and across. None: mixup."""


def draw(c: Train, seed: int, epoch: int, batch: int) -> Mix | None:
    """The mixing of one batch; None if the configuration asks for none. With both, a coin decides."""
    if not (c.mixup_alpha or c.cutmix_alpha):
        return None
    random = np.random.default_rng((seed, epoch, batch))
    cut = c.cutmix_alpha > 0 and (c.mixup_alpha == 0 or random.random() < 0.5)
    alpha = c.cutmix_alpha if cut else c.mixup_alpha
    share = float(random.beta(alpha, alpha))
    return Mix(share, (random.random(), random.random())) if cut else Mix(share)


def mix_batch(batch: Example, mix: Mix) -> tuple[Tensor, Example, float]:
    """Pictures mixed with their neighbours.

    The order is random, so the neighbour is a random other picture. Neighbours are always in one process, so
    the number of processes changes nothing. A last picture without a neighbour is mixed with the one before.

    Returns:
        The pictures, the examples that were mixed in, and the share of the loss that is left to the labels
        of ``batch`` (Zhang et al. 2018; for cutmix the uncovered share of the area, Yun et al. 2019).
    """
    count = len(batch.pixels)
    order = torch.arange(count, device=batch.pixels.device) ^ 1
    order[order >= count] = count - 2
    other = Example(*(part[order] for part in batch))
    if mix.box is None:
        return torch.lerp(other.pixels.float(), batch.pixels.float(), mix.share), other, mix.share
    height, width = batch.pixels.shape[1:3]
    side = (1 - mix.share) ** 0.5
    rows, columns = _box_range(mix.box[0], side, height), _box_range(mix.box[1], side, width)
    pixels = batch.pixels.clone()
    pixels[:, rows, columns] = other.pixels[:, rows, columns]
    covered = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pixels, other, 1 - covered / (height * width)


def _box_range(centre: float, side: float, length: int) -> slice:
    """Pixels of a rectangle along one side, cut off at the border."""
    start, stop = round((centre - side / 2) * length), round((centre + side / 2) * length)
    return slice(max(0, start), min(length, stop))

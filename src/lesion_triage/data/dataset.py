"""The torch datasets that give prepared pictures to training.

Imports torch, numpy and this package; nothing from training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from lesion_triage.data.augment import Augment
from lesion_triage.data.pixel_cache import Pixels


class Example(NamedTuple):
    """One training picture: uint8 (size, size, 3), its label (0 or 1), and the index of its diagnosis."""

    pixels: torch.Tensor
    needs_in_person: torch.Tensor
    diagnosis: torch.Tensor


class TrainingPictures(Dataset[Example]):
    """Augmented pictures. Item ``i`` depends on (seed, epoch, i) and nothing else."""

    def __init__(
        self,
        pictures: Pixels,
        needs_in_person: Sequence[bool],
        diagnoses: Sequence[int],
        augment: Augment,
        seed: int,
        epoch: int,
    ) -> None:
        self._pictures = pictures
        self._needs = torch.tensor(needs_in_person, dtype=torch.float32)
        self._diagnoses = torch.tensor(diagnoses, dtype=torch.int64)
        self._augment = augment
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._needs)

    def batch(self, indices: Sequence[int]) -> Example:
        """A whole batch, without collating: pixels (N, size, size, 3) and N labels of each kind."""
        pixels: NDArray[Any] | None = None
        for place, index in enumerate(indices):
            picture = self._augmented(index)
            if pixels is None:
                pixels = np.empty((len(indices), *picture.shape), picture.dtype)
            pixels[place] = picture
        chosen = torch.as_tensor(indices)
        return Example(torch.from_numpy(pixels), self._needs[chosen], self._diagnoses[chosen])

    def __getitem__(self, index: int) -> Example:
        return Example(torch.from_numpy(self._augmented(index)), self._needs[index], self._diagnoses[index])

    def _augmented(self, index: int) -> NDArray[np.uint8]:
        name = f"{self._seed}:{self._epoch}:{index}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest())
        return self._augment(np.asarray(self._pictures[index]), seed)


class DistributedBatchSampler(Sampler[list[int]]):
    """Batches of one epoch, divided into parts among the training processes.

    The order depends on (seed, epoch) alone, and a batch is the same set of pictures however many
    processes share it. Parts have even sizes if the batch has, so that neighbours, which are mixed with
    each other, are never separated.

    Args:
        length: pictures in the dataset; a last, incomplete batch is dropped.
        batch_size: pictures in a batch, over all processes.
        seed: the training seed.
        epoch: from 0.
        parts: how many parts each batch is cut into, at most half of ``batch_size``.
        own: the parts that this process takes, one after the other.
        first: the batch to begin with, from 0: where an interrupted epoch is resumed.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        epoch: int,
        parts: int = 1,
        own: Sequence[int] = (0,),
        first: int = 0,
    ) -> None:
        self.batches = length // batch_size
        self._order = np.random.default_rng((seed, epoch)).permutation(length).tolist()
        self._batch_size = batch_size
        self._limits = [2 * (batch_size // 2 * part // parts) for part in range(parts)] + [batch_size]
        self.epoch = epoch
        self.own = own
        self._first = first

    def part(self, batch: int, part: int) -> list[int]:
        """Indices of the pictures in one part of one batch."""
        start = batch * self._batch_size
        indices: list[int] = self._order[start + self._limits[part] : start + self._limits[part + 1]]
        return indices

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self._first, self.batches):
            for part in self.own:
                yield self.part(batch, part)

    def __len__(self) -> int:
        return (self.batches - self._first) * len(self.own)

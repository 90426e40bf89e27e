"""The torch datasets that give prepared pictures to training.

Imports torch, numpy and this room; nothing of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lesion_triage.data.augment import Augment
from lesion_triage.data.pixel_cache import Pixels


class Example(NamedTuple):
    """One training picture: uint8 (size, size, 3), its label (0 or 1), and the index of its diagnosis."""

    pixels: torch.Tensor
    needs_in_person: torch.Tensor
    diagnosis: torch.Tensor


class TrainingPictures(Dataset[Example]):
    """Augmented pictures. What item ``i`` looks like depends on (seed, epoch, i) and nothing else."""

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

    def __getitem__(self, index: int) -> Example:
        name = f"{self._seed}:{self._epoch}:{index}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest())
        picture = self._augment(np.asarray(self._pictures[index]), seed)
        return Example(torch.from_numpy(picture), self._needs[index], self._diagnoses[index])


class EpochOrder(Sampler[int]):
    """A permutation that depends on (seed, epoch) alone."""

    def __init__(self, length: int, seed: int, epoch: int) -> None:
        self._order = np.random.default_rng((seed, epoch)).permutation(length).tolist()

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

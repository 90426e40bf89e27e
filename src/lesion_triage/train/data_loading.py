"""Pictures on their way to the network: splits, batches of an epoch, embeddings. Imports torch and data.

The content of a batch depends on (seed, epoch, batch) alone, whichever process prepares it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lesion_triage.config import Config
from lesion_triage.console import ProgressCallback
from lesion_triage.data.augment import augmentation
from lesion_triage.data.dataset import DistributedBatchSampler, Example, TrainingPictures
from lesion_triage.data.pixel_cache import Pixels
from lesion_triage.data.records import Record
from lesion_triage.errors import TrainingError
from lesion_triage.train.interruption import ignore_group_signals
from lesion_triage.train.network import TriageNetwork

SMALL_SIDE_SHARE = 0.8  # side of the pictures in the first epochs, as a share of the full one
SCORING_BATCH_SIZE = 64  # pictures scored at once outside training


@dataclass(frozen=True)
class Pictures:
    """Prepared pictures of one split beside their records, in the same order."""

    records: Sequence[Record]
    pixels: Pixels

    def needs_in_person(self) -> list[bool]:
        """Labels, in the order of the pictures."""
        return [bool(record.needs_in_person) for record in self.records]


class EmbeddingDataset(Dataset[Example]):
    """Embeddings instead of pictures, for a frozen backbone."""

    def __init__(self, embeddings: Tensor, needs_in_person: Sequence[bool], diagnoses: Sequence[int]) -> None:
        self._embeddings = embeddings
        self._needs = torch.tensor(needs_in_person, dtype=torch.float32)
        self._diagnoses = torch.tensor(diagnoses, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._needs)

    def __getitem__(self, index: int) -> Example:
        return Example(self._embeddings[index], self._needs[index], self._diagnoses[index])


def batch_order(
    config: Config, length: int, epoch: int, world: int, rank: int, first: int = 0
) -> DistributedBatchSampler:
    """The batches of an epoch, and which parts of them the process ``rank`` of ``world`` takes.

    Raises:
        TrainingError: fewer pictures than a batch.
    """
    c = config.train
    if length < c.batch_size:
        raise TrainingError(
            f"split 'train' has {length} pictures, less than one batch of {c.batch_size}; "
            "lower train.batch_size or enlarge the split."
        )
    own = range(rank * c.accumulate, (rank + 1) * c.accumulate)
    return DistributedBatchSampler(length, c.batch_size, config.seed, epoch, world * c.accumulate, own, first)


def augmented_dataset(
    config: Config, training: Pictures, diagnoses: Sequence[int], epoch: int
) -> Dataset[Example]:
    """Training pictures as the epoch sees them."""
    return TrainingPictures(
        training.pixels,
        training.needs_in_person(),
        diagnoses,
        augmentation(config.train.augmentation, _side(config, epoch)),
        config.seed,
        epoch,
    )


def picture_sides(config: Config) -> list[int]:
    """Sides in pixels of the pictures that the network will see: the full one, that of ``small_first``."""
    epochs = () if config.train.probe else range(config.train.epochs)
    return sorted({config.pixels.size_px, *(_side(config, epoch) for epoch in epochs)}, reverse=True)


def _side(config: Config, epoch: int) -> int:
    small, whole = epoch < round(config.train.small_first * config.train.epochs), config.pixels.size_px
    return min(round(whole * SMALL_SIDE_SHARE / 32) * 32, whole) if small else whole


def data_loader(
    dataset: Dataset[Example], order: DistributedBatchSampler, workers: int, pinned: bool = False
) -> DataLoader[Example]:
    """Batches in the order given, prepared by loader processes.

    Args:
        dataset: the source of the batches.
        order: of the batches.
        workers: number of loader processes; 0: this one.
        pinned: put the batches in pinned memory, from which a GPU copies them while it computes.
    """
    collate: Callable[[Any], Any] | None = None
    if isinstance(dataset, TrainingPictures):
        dataset, collate = _WholeBatchDataset(dataset), _return_unchanged
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        worker_init_fn=ignore_group_signals if workers else None,
        collate_fn=collate,
        pin_memory=pinned,
    )


class _WholeBatchDataset(Dataset[Example]):
    """Gives the loader whole batches: torch would stack the pictures one by one."""

    def __init__(self, dataset: TrainingPictures) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, indices: Sequence[int]) -> Example:
        return self._dataset.batch(indices)


def _return_unchanged(batch: Example) -> Example:
    return batch


@torch.inference_mode()
def embeddings(
    network: TriageNetwork, pictures: Pictures, tick: ProgressCallback = lambda *_: None
) -> Tensor:
    """Embeddings [N, width] of unaugmented pictures, on the CPU; the network is in eval mode."""
    device = network.mean.device
    found = []
    for start in range(0, len(pictures.records), SCORING_BATCH_SIZE):
        pixels = torch.from_numpy(np.array(pictures.pixels[start : start + SCORING_BATCH_SIZE])).to(device)
        found.append(network.embed(pixels).cpu())
        tick(min(start + SCORING_BATCH_SIZE, len(pictures.records)), len(pictures.records))
    return torch.cat(found)

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from lesion_triage.data.augment import augmentation
from lesion_triage.data.dataset import DistributedBatchSampler, TrainingPictures
from lesion_triage.train import data_loading


@pytest.fixture
def dataset():
    shown = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3)).astype(np.uint8)
    needs = [bool(number % 2) for number in range(20)]
    return TrainingPictures(shown, needs, list(range(20)), augmentation("strong", 32), seed=3, epoch=1)


def same(one, other):
    return all(a.equal(b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_a_batch_made_whole_is_the_batch_of_its_pictures(dataset):
    chosen = [7, 2, 2, 19]
    assert same(dataset.batch(chosen), default_collate([dataset[number] for number in chosen]))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_for_any_number_of_loader_processes(dataset, workers):
    order = DistributedBatchSampler(20, 6, seed=3, epoch=1)
    plain = DataLoader([dataset[number] for number in range(20)], batch_sampler=order)
    loaded = list(data_loading.data_loader(dataset, order, workers))
    assert len(loaded) == 3
    assert all(same(one, other) for one, other in zip(loaded, plain, strict=True))


def test_a_picture_looks_the_same_whatever_was_made_before_it(dataset):
    alone = dataset[11].pixels.clone()
    dataset.batch([3, 4, 5])
    assert dataset.batch([5, 11]).pixels[1].equal(alone)


def test_labels_belong_to_their_pictures(dataset):
    batch = dataset.batch([5, 6])
    assert batch.diagnosis.tolist() == [5, 6]
    assert batch.needs_in_person.equal(torch.tensor([1.0, 0.0]))

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from lesion_triage.data.augment import augmentation


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("level", ["none", "flips", "standard", "strong"])
def test_the_result_depends_on_picture_and_seed_alone(picture, level):
    augment = augmentation(level, 48)
    first = augment(picture, 7)
    augment(picture, 8)
    assert np.array_equal(augment(picture, 7), first)
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8


def test_none_leaves_a_picture_of_the_right_size_alone(picture):
    assert np.array_equal(augmentation("none", 64)(picture, 3), picture)


def test_flips_reach_the_eight_symmetries_of_the_square_and_nothing_else(picture):
    augment = augmentation("flips", 64)
    reached = {augment(picture, seed).tobytes() for seed in range(200)}
    turned = [np.rot90(picture, k) for k in range(4)]
    symmetries = {np.ascontiguousarray(t).tobytes() for t in turned} | {
        np.ascontiguousarray(t.transpose(1, 0, 2)).tobytes() for t in turned
    }
    assert reached == symmetries


@pytest.mark.parametrize("level", ["standard", "strong"])
def test_an_augmentation_that_travels_to_another_process_does_the_same_there(picture, level):
    augment = augmentation(level, 48)
    augment(picture, 1)
    assert np.array_equal(pickle.loads(pickle.dumps(augment))(picture, 7), augment(picture, 7))


def test_the_steps_of_an_augmentation_are_independent_of_each_other():
    """One seed for all steps would tie the way a picture is turned to how bright it becomes."""
    ramp = np.broadcast_to(np.linspace(90, 160, 64)[None, :, None], (64, 64, 3)).astype(np.uint8)
    augment = augmentation("standard", 64)
    brightness: dict[str, list[float]] = {"rising": [], "falling": []}
    for seed in range(600):
        result = augment(ramp, seed).astype(float).mean(axis=2)
        slope = result[:, 32:].mean() - result[:, :32].mean()
        if abs(slope) > 10:  # lies as it was or mirrored, not on its side
            brightness["rising" if slope > 0 else "falling"].append(result.mean())
    assert min(map(len, brightness.values())) > 60
    assert mannwhitneyu(*brightness.values()).pvalue > 1e-4


@pytest.mark.parametrize("level", ["standard", "strong"])
def test_an_augmentation_varies_and_never_alters_its_input(picture, level):
    before = picture.copy()
    augment = augmentation(level, 64)
    assert len({augment(picture, seed).tobytes() for seed in range(20)}) == 20
    assert np.array_equal(picture, before)

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import config
from scipy.stats import beta, kstest

from lesion_triage.data.dataset import DistributedBatchSampler, Example
from lesion_triage.train.mixing import Mix, draw, mix_batch

PIXELS = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 20, 20, 3).contiguous() * 50
BATCH = Example(PIXELS, torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0, 1, 2, 3]))


def test_mixup_blends_each_picture_with_its_neighbour():
    pixels, other, share = mix_batch(BATCH, Mix(0.75))
    assert share == 0.75
    assert other.diagnosis.tolist() == [1, 0, 3, 2]
    own, neighbour = torch.tensor([0.0, 50, 100, 150]), torch.tensor([50.0, 0, 150, 100])
    torch.testing.assert_close(pixels[:, 3, 5, 1], 0.75 * own + 0.25 * neighbour)


@pytest.mark.parametrize(("size", "parts"), [(5, 1), (5, 2), (9, 3), (9, 4)])
def test_the_last_of_an_odd_number_takes_the_one_before_however_the_batch_is_divided(size, parts):
    def neighbours(part: list[int]) -> list[int]:
        pixels = torch.zeros(len(part), 4, 4, 3, dtype=torch.uint8)
        return mix_batch(Example(pixels, torch.zeros(len(part)), torch.tensor(part)), Mix(0.5))[1][2].tolist()

    batch = DistributedBatchSampler(size, size, seed=0, epoch=0).part(0, 0)
    divided = DistributedBatchSampler(size, size, seed=0, epoch=0, parts=parts)
    found = [one for part in range(parts) for one in neighbours(divided.part(0, part))]
    assert found == [*(batch[place ^ 1] for place in range(size - 1)), batch[-2]]


@pytest.mark.parametrize(
    ("box", "covered"), [((0.5, 0.5), 10 * 10), ((0.0, 0.5), 5 * 10), ((1.0, 1.0), 5 * 5)]
)
def test_cutmix_weighs_the_labels_by_the_area_that_is_seen(box, covered):
    pixels, _, share = mix_batch(BATCH, Mix(0.75, box))
    assert share == pytest.approx(1 - covered / 400)
    assert (pixels[0] == 50).all(dim=2).sum() == covered
    assert (pixels[0] == 0).all(dim=2).sum() == 400 - covered
    assert pixels.dtype == torch.uint8


def test_what_is_drawn_depends_on_seed_epoch_and_batch_alone():
    c = config(mixup_alpha=0.4, cutmix_alpha=1.0).train
    drawn = {draw(c, *place) for place in np.ndindex(2, 3, 4)}
    assert len(drawn) == 24
    assert draw(c, 1, 2, 3) == draw(c, 1, 2, 3)


def test_shares_come_from_the_beta_distribution_that_was_asked_for():
    c = config(mixup_alpha=0.4).train
    shares = [mix.share for batch in range(2000) if (mix := draw(c, 0, 0, batch)) is not None]
    assert len(shares) == 2000
    assert kstest(shares, beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_with_both_a_coin_decides_and_with_neither_nothing_is_drawn():
    both = config(mixup_alpha=0.4, cutmix_alpha=1.0).train
    cut = sum(mix.box is not None for batch in range(400) if (mix := draw(both, 0, 0, batch)))
    assert 150 < cut < 250
    assert draw(config().train, 0, 0, 0) is None
    assert draw(config(cutmix_alpha=1.0).train, 0, 0, 0).box is not None

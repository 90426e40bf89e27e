from __future__ import annotations

import pytest
import torch
from drawn import config

from lesion_triage.config import Config
from lesion_triage.errors import TrainingError
from lesion_triage.train.preflight import check_network


def sized(backbone: str, size_px: int, **train_section) -> Config:
    made = config(backbone, **train_section)
    model = made.model.model_copy(update={"drop_path_rate": 0.0})
    return made.model_copy(
        update={"model": model, "pixels": made.pixels.model_copy(update={"size_px": size_px})}
    )


def test_a_backbone_of_one_size_refuses_the_small_pictures_of_the_first_epochs():
    check_network(sized("test_vit3", 96))
    complaint = (
        r"'test_vit3', built for 96 px, takes no pictures of 64 px \(.*\); set train\.small_first to 0"
    )
    with pytest.raises(TrainingError, match=complaint):
        check_network(sized("test_vit3", 96, small_first=0.5))


def test_small_pictures_that_no_epoch_sees_are_not_tried():
    check_network(sized("test_vit3", 96, small_first=0.1, epochs=3))  # a tenth of three epochs is none
    check_network(sized("test_vit3", 96, small_first=0.5, probe=True))


def test_a_backbone_that_takes_no_pictures_of_this_size_is_refused_by_name():
    complaint = (
        r"'halonet26t', built for 160 px, takes no pictures of 160 px \(AssertionError\); choose another "
        r"pixels\.size_px, such as timm's own 256, or choose another model\.backbone\.$"
    )
    with pytest.raises(TrainingError, match=complaint):
        check_network(sized("halonet26t", 160))
    check_network(sized("halonet26t", 256))


def test_weights_that_the_hub_does_not_have_are_known_before_anything_is_decoded():
    made = sized("ghostnet_050", 64)
    check_network(made)
    hub = made.model_copy(update={"model": made.model.model_copy(update={"weights": "hub"})})
    with pytest.raises(TrainingError, match="no pretrained weights of backbone 'ghostnet_050'; set model"):
        check_network(hub)


def test_more_frozen_stages_than_there_are_is_known_before_anything_is_decoded():
    with pytest.raises(TrainingError, match="leaves nothing to train"):
        check_network(sized("test_efficientnet", 32, frozen_stages=50))


def test_a_rehearsal_draws_nothing_from_the_generator_of_the_training():
    before = torch.random.get_rng_state()
    check_network(sized("test_efficientnet", 64, small_first=0.5))
    assert torch.equal(torch.random.get_rng_state(), before)

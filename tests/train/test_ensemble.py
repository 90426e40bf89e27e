from __future__ import annotations

import math

import numpy as np
import onnxruntime as ort
import pytest
import torch
from drawn import TRAINING, VALIDATION, config, same, weights

from lesion_triage.data.dataset import Example
from lesion_triage.errors import TrainingError
from lesion_triage.export.onnx_graph import convert
from lesion_triage.train import checkpoint
from lesion_triage.train.ensemble import Ensemble
from lesion_triage.train.loop import train
from lesion_triage.train.losses import losses, lowest_logit
from lesion_triage.train.network import Heads

LOWEST = math.log(0.025 / 0.975)
"""What the loss wants of a negative with a label smoothing of 0.05: the probability 0.025."""


@pytest.fixture(scope="module")
def average(tmp_path_factory):
    """Folder of an averaged checkpoint, and the folders of its three members."""
    folder = tmp_path_factory.mktemp("average")
    whole = config("test_resnet", epochs=1)
    folders = []
    for seed in range(3):
        folders.append(folder / str(seed))
        folders[-1].mkdir()
        train(whole.model_copy(update={"seed": seed}), TRAINING, VALIDATION, folders[-1], "key")
    checkpoint.save_averaged_ensemble(folder, folders, whole)
    return folder, folders


def test_it_gives_the_mean_of_the_members_logits_and_the_first_ones_embedding_and_levels(average):
    """The exported graph does too: tests/test_pipeline_ensemble.py."""
    folder, folders = average
    network = checkpoint.load_checkpoint(folder)
    assert isinstance(network, Ensemble)
    pixels = torch.from_numpy(VALIDATION.pixels[:7])
    with torch.inference_mode():
        logit, embedding, levels = network(pixels)
        alone = [checkpoint.load_checkpoint(member)(pixels) for member in folders]
    logits = np.stack([each.logit.numpy() for each in alone]).clip(LOWEST)
    np.testing.assert_allclose(logit.numpy(), logits.mean(0), atol=1e-5)
    assert np.abs(logits[0] - logits.mean(0)).max() > 1e-3
    assert torch.equal(embedding, alone[0].embedding)
    assert torch.equal(levels, alone[0].levels)


def test_an_averaged_checkpoint_holds_every_member_to_the_bit(average):
    folder, folders = average
    network = checkpoint.load_checkpoint(folder)
    for number, member in enumerate(folders):
        prefix = f"members.{number}."
        own = {
            name.removeprefix(prefix): value
            for name, value in network.state_dict().items()
            if name.startswith(prefix)
        }
        assert same(own, weights(member))


def test_members_of_two_backbones_are_read_back_as_what_they_are(tmp_path):
    folders = []
    for name in ("test_resnet", "test_vit"):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        train(config(name, epochs=1), TRAINING, VALIDATION, folders[-1], "key")
    checkpoint.save_averaged_ensemble(tmp_path, folders, config("test_resnet"))
    network = checkpoint.load_checkpoint(tmp_path)
    pixels = torch.from_numpy(VALIDATION.pixels[:7])
    with torch.inference_mode():
        together = network(pixels)
        alone = [checkpoint.load_checkpoint(folder)(pixels) for folder in folders]
    held = [each.logit.clamp(min=LOWEST) for each in alone]
    np.testing.assert_allclose(together.logit, (held[0] + held[1]) / 2, atol=1e-5)
    assert (alone[0].logit - alone[1].logit).abs().max() > 1e-3
    assert torch.equal(together.levels, alone[0].levels)


def test_a_member_that_is_missing_is_one_sentence_and_leaves_no_checkpoint(average, tmp_path):
    with pytest.raises(TrainingError, match="not a checkpoint of this project"):
        checkpoint.save_averaged_ensemble(
            tmp_path, [average[1][0], tmp_path / "nobody"], config("test_resnet")
        )
    assert not list(tmp_path.iterdir())


def test_no_member_outvotes_the_others_downwards(average, tmp_path):
    """A member that is sure of nothing counts as the loss wants a negative, and no lower; upwards in full."""
    _, folders = average
    pixels = torch.from_numpy(VALIDATION.pixels[:7])
    tensors = weights(folders[0])
    for name, bias in (("low", -50.0), ("high", 50.0)):
        (tmp_path / name).mkdir()
        sure = {**tensors, "needs_in_person.bias": torch.tensor([bias])}
        checkpoint.save_checkpoint(tmp_path / name, sure, config("test_resnet"), ["benign", "malignant"])
        checkpoint.save_averaged_ensemble(tmp_path, [folders[1], tmp_path / name], config("test_resnet"))
        with torch.inference_mode():
            other = checkpoint.load_checkpoint(folders[1])(pixels).logit
            alone = checkpoint.load_checkpoint(tmp_path / name)(pixels).logit
            together = checkpoint.load_checkpoint(tmp_path)(pixels).logit
        counted = torch.full_like(alone, LOWEST) if name == "low" else alone
        np.testing.assert_allclose(together, (other.clamp(min=LOWEST) + counted) / 2, atol=1e-5)
    scorer = ort.InferenceSession(convert(checkpoint.load_checkpoint(tmp_path), 32, 2, 20))
    assert scorer.run(["logit"], {"pixels": VALIDATION.pixels[:7]})[0].min() > 20


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "bce"},
        {"loss": "balanced"},
        {"loss": "focal"},
        {"loss": "focal", "focal_gamma": 0.0},
        {"loss": "focal", "focal_gamma": 5.0, "label_smoothing": 1e-6},
    ],
)
def test_the_loss_is_lowest_where_a_member_is_held(settings):
    """And without smoothing it has no such place."""
    given = config("test_resnet").train.model_copy(update={"auxiliary_diagnosis_weight": 0.0, **settings})
    held = lowest_logit(given)
    logits = held + torch.tensor([-0.1, 0, 0.1], dtype=torch.float64)
    batch = Example(torch.zeros(3, 1, 1, 3), torch.zeros(3).double(), torch.zeros(3, dtype=torch.long))
    loss = losses(Heads(logits, torch.zeros(3, 2)), batch, given, torch.ones(2).double())
    assert loss.argmin() == 1
    assert lowest_logit(given.model_copy(update={"label_smoothing": 0.0})) == -math.inf

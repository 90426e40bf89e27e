"""A student comes to say what its teachers say, of the very pictures that it sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import drawn
import numpy as np
import pytest
import torch
from drawn import TRAINING, VALIDATION, config, same, weights
from lightning_fabric import Fabric
from torch.nn import functional

from lesion_triage.config import Config
from lesion_triage.data.dataset import Example
from lesion_triage.train import checkpoint, loop, mixing
from lesion_triage.train.distil import SoftTargets, Teacher, cross_entropy
from lesion_triage.train.loop import Listener, train
from lesion_triage.train.network import Heads
from lesion_triage.train.training_state import TrainingState

RECIPE = {
    "backbone": "test_resnet",
    "epochs": 2,
    "checkpoint_minutes": 0,
    "mixup_alpha": 0.4,
    "accumulate": 2,
}


def taught(share: float = 0.5, **section) -> Config:
    return config(**{**RECIPE, **section}).model_copy(
        update={"ensemble": drawn.ensemble(members=2, teacher_share=share)}
    )


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> list[Path]:
    """Two networks that have the labels wrong: they were trained with red and green exchanged."""
    folder = tmp_path_factory.mktemp("teachers")
    exchanged = drawn.Pictures(TRAINING.records, np.ascontiguousarray(TRAINING.pixels[:, :, :, [1, 0, 2]]))
    folders = []
    for seed in range(2):
        folders.append(folder / str(seed))
        folders[-1].mkdir()
        recipe = config("test_resnet", epochs=6).model_copy(update={"seed": seed})
        train(recipe, exchanged, VALIDATION, folders[-1], "key")
    return folders


@pytest.mark.parametrize(("share", "believes"), [(0.9, "teachers"), (0.1, "labels")])
def test_a_student_believes_whoever_has_the_larger_share_of_the_loss(teachers, tmp_path, share, believes):
    """Labels and teachers contradict each other, so the AUROC on the labels tells whom it followed."""
    recipe = taught(
        share, epochs=8, mixup_alpha=0.0, accumulate=1, label_smoothing=0.0, checkpoint_minutes=60
    )
    curve = train(recipe, TRAINING, VALIDATION, tmp_path, "key", teachers=teachers)
    auroc = curve[-1].validation_auroc
    assert auroc < 0.1 if believes == "teachers" else auroc > 0.9


def test_the_loss_is_lowest_and_flat_where_the_student_says_the_same():
    torch.manual_seed(0)
    needs, diagnoses = torch.randn(5).sigmoid(), torch.randn(5, 3).softmax(1)
    logit = torch.logit(needs).requires_grad_()
    diagnosis = diagnoses.log().requires_grad_()
    soft_targets = SoftTargets(needs, diagnoses)
    there = cross_entropy(Heads(logit, diagnosis), soft_targets, 0.7)
    there.sum().backward()
    torch.testing.assert_close(logit.grad, torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(diagnosis.grad, torch.zeros(5, 3), atol=1e-6, rtol=0)
    entropy = -(needs * needs.log() + (1 - needs) * (1 - needs).log())
    entropy = entropy - 0.7 * (diagnoses * diagnoses.log()).sum(1)
    torch.testing.assert_close(there.detach(), entropy)
    elsewhere = cross_entropy(Heads(logit.detach() + 1, diagnosis.detach()), soft_targets, 0.7)
    assert (elsewhere > there).all()


@pytest.mark.parametrize("mix", [None, mixing.Mix(0.3), mixing.Mix(0.6, (0.5, 0.4))])
def test_teachers_are_asked_of_the_mixed_picture_itself_in_eval_mode_and_without_gradient(teachers, mix):
    """Worked out here from the members' checkpoints, for one batch of noise."""
    c = taught(0.3, drop_rate=0.0).train
    fabric = Fabric(accelerator="cpu", devices=1)
    state = TrainingState(fabric, taught(0.3, drop_rate=0.0), 2)
    state.teacher = Teacher(fabric, taught(0.3), teachers)
    state.train_mode()
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8))
    batch = Example(pixels, torch.tensor([0.0, 1, 0, 1, 0, 1]), torch.tensor([0, 1, 0, 1, 0, 1]))
    found = loop._losses(state, batch, mix, c, torch.ones(2))
    state.teacher = None
    labels = loop._losses(state, batch, mix, c, torch.ones(2))
    given = pixels if mix is None else mixing.mix_batch(batch, mix)[0]
    with torch.no_grad():
        networks = [checkpoint.load_checkpoint(folder) for folder in teachers]
        heads = [network.heads(network.embed(given)) for network in networks]
        student = state.model(given)
    needs = torch.stack([each.logit.sigmoid() for each in heads]).mean(0)
    diagnosis = torch.stack([each.diagnosis.softmax(1) for each in heads]).mean(0)
    logit = student.logit
    taught_by = -(needs * functional.logsigmoid(logit) + (1 - needs) * functional.logsigmoid(-logit))
    taught_by = taught_by - (diagnosis * student.diagnosis.log_softmax(1)).sum(1)
    torch.testing.assert_close(found.detach(), 0.7 * labels.detach() + 0.3 * taught_by, atol=1e-5, rtol=1e-4)


class PlugPulledError(Exception):
    """Stands for a pulled plug."""


def test_a_student_that_was_stopped_goes_on_to_the_same_bits_and_leaves_its_teachers_alone(
    teachers, tmp_path
):
    before = [weights(folder) for folder in teachers]
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    train(taught(), TRAINING, VALIDATION, tmp_path / "whole", "key", teachers=teachers)

    def pull(epoch, done, _):
        if (epoch, done) == (1, 3):
            raise PlugPulledError

    broken = tmp_path / "broken"
    with pytest.raises(PlugPulledError):
        train(taught(), TRAINING, VALIDATION, broken, "key", Listener(on_batch=pull), teachers)
    train(taught(), TRAINING, VALIDATION, broken, "key", teachers=teachers)
    assert same(weights(broken), weights(tmp_path / "whole"))
    assert all(same(weights(folder), old) for folder, old in zip(teachers, before, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_members_and_student_one_after_the_other_as_one_process_does(tmp_path):
    """Each training starts a second process of its own. Backbone without batch statistics, no dropout."""
    recipe = {"backbone": "test_vit", "drop_rate": 0.0, "epochs": 1, "batch_size": 12, "members": 2}
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    drawn.main(str(alone), *(f"{key}={value}" for key, value in recipe.items()))
    settings = [f"{key}={value}" for key, value in {**recipe, "devices": 2}.items()]
    command = [sys.executable, drawn.__file__, str(together), *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Starting with 2 processes") == 3
    for name in ("0", "1", ""):
        ours, theirs = weights(together / name), weights(alone / name)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=0, atol=2e-3, msg=key)


def test_an_ensemble_of_one_has_no_teacher_and_embeddings_have_none():
    with pytest.raises(ValueError, match="distil learns from several members; set members to 2"):
        drawn.ensemble(members=1)
    whole = config(probe=True).model_dump()
    whole["ensemble"] = {"members": 2, "combine": "distil"}
    with pytest.raises(ValueError, match=r"distil needs pictures, and train\.probe trains on embeddings"):
        Config.model_validate(whole)

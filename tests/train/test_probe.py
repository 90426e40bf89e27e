from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import TRAINING, VALIDATION, config, same, weights
from sklearn.linear_model import LogisticRegression

from lesion_triage.train import checkpoint
from lesion_triage.train.data_loading import embeddings
from lesion_triage.train.loop import Listener, train
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import create_backbone

RECIPE = {"probe": True, "epochs": 20, "learning_rate": 1e-2}


def test_a_probe_trains_the_head_and_leaves_the_backbone_to_the_bit(tmp_path):
    told = []
    listener = Listener(on_embedding=lambda done, all_: told.append((done, all_)))
    curve = train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key", listener)
    assert told[-1] == (72, 72)
    assert curve[-1].validation_auroc > 0.95
    torch.manual_seed(0)
    fresh = TriageNetwork(create_backbone("test_efficientnet", "none", 32), 2)
    torch.manual_seed(0)
    found = weights(tmp_path)
    for name, value in TriageNetwork(fresh.backbone, 2).state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(found[name], value), name


def test_the_finished_network_gives_to_pixels_the_logits_that_the_probe_gave_to_embeddings(tmp_path):
    """A separable problem: its ranking must be that of a logistic regression on the same embeddings."""
    train(config(**RECIPE), TRAINING, VALIDATION, tmp_path, "key")
    network = checkpoint.load_checkpoint(tmp_path)
    with torch.inference_mode():
        logits = network(torch.from_numpy(VALIDATION.pixels))[0].numpy()
    referee = LogisticRegression(max_iter=2000)
    known = embeddings(network, TRAINING).numpy()
    scale = known.std(0) + 1e-6
    referee.fit((known - known.mean(0)) / scale, TRAINING.needs_in_person())
    expected = referee.decision_function((embeddings(network, VALIDATION).numpy() - known.mean(0)) / scale)
    assert np.array_equal(logits > 0, expected > 0)
    assert np.corrcoef(logits, expected)[0, 1] > 0.95


def test_a_probe_that_was_killed_goes_on_to_the_same_bits(tmp_path):
    class PlugPulledError(Exception):
        pass

    def pull(epoch, done, _):
        if (epoch, done) == (3, 2):
            raise PlugPulledError

    (tmp_path / "whole").mkdir()
    recipe = config(**{**RECIPE, "epochs": 5, "checkpoint_minutes": 0, "mixup_alpha": 0.4})
    train(recipe, TRAINING, VALIDATION, tmp_path / "whole", "key")
    with pytest.raises(PlugPulledError):
        train(recipe, TRAINING, VALIDATION, tmp_path, "key", Listener(on_batch=pull))
    train(recipe, TRAINING, VALIDATION, tmp_path, "key")
    assert same(weights(tmp_path), weights(tmp_path / "whole"))


def test_a_probe_on_several_processes_is_refused():
    with pytest.raises(ValueError, match="probe takes one process"):
        config(probe=True, devices=2)


def test_cutmix_of_embeddings_is_refused():
    with pytest.raises(ValueError, match="cutmix needs pictures"):
        config(probe=True, cutmix_alpha=1.0)

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import chain, repeat

import numpy as np
import pytest
import torch
from drawn import TRAINING, VALIDATION, config, half_precision, same, weights
from sklearn.metrics import roc_auc_score

from lesion_triage.errors import DivergedError, TrainingError
from lesion_triage.train import checkpoint, distributed, loop, validation
from lesion_triage.train.loop import Listener, train
from lesion_triage.train.training_state import TrainingState


class PlugPulledError(Exception):
    """Stands for a pulled plug."""


def test_it_learns_what_can_be_learnt(tmp_path):
    curve = train(config(epochs=6), TRAINING, VALIDATION, tmp_path, "key")
    assert curve[-1].loss < curve[0].loss
    assert curve[-1].validation_auroc > 0.95


def test_the_auroc_of_the_curve_is_that_of_cases_and_ties_count_half():
    """Two photographs a case, the second with the case's logit; against another implementation."""
    logits = np.random.default_rng(0).integers(-3, 4, len(VALIDATION.records)).astype(float)
    needs = [bool(record.needs_in_person) for record in VALIDATION.records]
    shown = [*(replace(record, needs_in_person=False) for record in VALIDATION.records), *VALIDATION.records]
    found = validation.case_auroc(shown, [*(logits - 9), *logits], "max")
    assert found == pytest.approx(roc_auc_score(needs, logits))
    assert np.isnan(validation.case_auroc(VALIDATION.records[::2], logits[::2], "max"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        run = config(epochs=1).model_copy(update={"seed": seed})
        train(run, TRAINING, VALIDATION, tmp_path / name, "key")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_the_number_of_loader_processes_changes_nothing(tmp_path):
    for name, workers in (("a", 0), ("b", 2)):
        (tmp_path / name).mkdir()
        train(config(epochs=1, workers=workers), TRAINING, VALIDATION, tmp_path / name, "key")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_killed_run_goes_on_to_the_same_weights_as_one_that_was_not(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    curve = train(config(), TRAINING, VALIDATION, whole, "key")

    def pull_the_plug(epoch, done, _):
        if (epoch, done) == (1, 3):
            raise PlugPulledError

    with pytest.raises(PlugPulledError):
        train(config(), TRAINING, VALIDATION, broken, "key", Listener(on_batch=pull_the_plug))
    assert not (broken / checkpoint.CHECKPOINT).exists()
    resumed = train(config(), TRAINING, VALIDATION, broken, "key")
    assert same(weights(whole), weights(broken))
    assert [line.loss for line in resumed] == [line.loss for line in curve]


def test_a_state_made_from_other_inputs_is_not_resumed(tmp_path):
    def stop(epoch, *_):
        if epoch == 1:
            raise PlugPulledError

    with pytest.raises(PlugPulledError):
        train(config(), TRAINING, VALIDATION, tmp_path, "one", Listener(on_batch=stop))
    epochs = []
    train(config(epochs=2), TRAINING, VALIDATION, tmp_path, "other", Listener(lambda e, *_: epochs.append(e)))
    assert epochs[0] == 0


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_whole_epoch(tmp_path):
    said = r"(loss is -?(nan|inf)|gradient is not finite \(loss \S+\)) in epoch \d+, batch \d+"
    with pytest.raises(TrainingError, match=said):
        train(config(learning_rate=1e38, epochs=4), TRAINING, VALIDATION, tmp_path, "key")
    assert not (tmp_path / checkpoint.CHECKPOINT).exists()


@pytest.mark.parametrize(("broken_steps", "stops"), [(3, False), (10**6, True)])
def test_16_bit_training_survives_an_overflow_but_not_a_gradient_that_stays_broken(
    tmp_path, monkeypatch, broken_steps, stops
):
    class Broken(TrainingState):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            factors = chain(repeat(float("nan"), broken_steps), repeat(1.0))
            weight = next(one for one in self.network.parameters() if one.requires_grad)
            weight.register_hook(lambda gradient: gradient * next(factors))

    monkeypatch.setattr(loop, "TrainingState", Broken)
    monkeypatch.setattr(distributed, "launch_processes", lambda _: half_precision())
    recipe = config(epochs=6)
    if stops:
        with pytest.raises(DivergedError, match=r"gradient is not finite \(loss \S+\) in epoch 6,.*32-true"):
            train(recipe, TRAINING, VALIDATION, tmp_path, "key")
        assert not (tmp_path / checkpoint.CHECKPOINT).exists()
    else:
        curve = train(recipe, TRAINING, VALIDATION, tmp_path, "key")
        assert curve[-1].loss < curve[0].loss


def test_a_network_that_breaks_in_the_last_batch_of_an_epoch_has_diverged_and_nothing_of_it_is_kept(tmp_path):
    recipe = {"epochs": 1, "batch_size": 48, "warmup_epochs": 0, "learning_rate": 1e20}
    complaint = (
        r"after epoch 1 the logit of 24 of 24 validation photographs is no finite number: the training d"
    )
    with pytest.raises(DivergedError, match=complaint):
        train(config("test_resnet", **recipe), TRAINING, VALIDATION, tmp_path, "key")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_fewer_pictures_than_a_batch_is_one_sentence(tmp_path):
    with pytest.raises(TrainingError, match="less than one batch"):
        train(config(batch_size=64), TRAINING, VALIDATION, tmp_path, "key")


def test_frozen_stages_keep_weights_and_statistics(tmp_path):
    torch.manual_seed(0)
    train(config(epochs=1, frozen_stages=1), TRAINING, VALIDATION, tmp_path, "a")
    once = weights(tmp_path)
    train(config(epochs=2, frozen_stages=1), TRAINING, VALIDATION, tmp_path, "b")
    twice = weights(tmp_path)
    stem = [name for name in once if name.startswith(("backbone.conv_stem", "backbone.bn1"))]
    assert stem
    assert all(torch.equal(once[name], twice[name]) for name in stem)
    assert not same(once, twice)


def test_the_checkpoint_reads_back_as_the_network_it_was(tmp_path):
    train(config(epochs=1), TRAINING, VALIDATION, tmp_path, "key")
    network = checkpoint.load_checkpoint(tmp_path)
    assert same(dict(network.state_dict()), weights(tmp_path))


def test_something_else_in_place_of_a_checkpoint_is_refused(tmp_path):
    (tmp_path / checkpoint.CHECKPOINT).write_bytes(b"pickle?")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        checkpoint.load_checkpoint(tmp_path)


def test_every_line_of_the_curve_is_reported_once_an_epoch(tmp_path):
    lines = []
    curve = train(config(epochs=2), TRAINING, VALIDATION, tmp_path, "key", Listener(on_epoch=lines.append))
    assert [asdict(line) for line in lines] == [asdict(line) for line in curve]

from __future__ import annotations

from pathlib import Path

import pytest

from lesion_triage.config import Config
from lesion_triage.errors import ConfigError
from lesion_triage.sweep import space
from lesion_triage.sweep.space import Choices, Interval

BASE = Config.model_validate({"name": "try", "data": {"source": "synthetic"}})


def read(tmp_path: Path, text: str, seeds: int | None = None) -> space.Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return space.read(path, BASE, seeds)


def test_numbers_and_choices_are_read_as_the_configuration_means_them(tmp_path):
    found = read(
        tmp_path,
        "sweep: {pruner: hyperband, seeds: 3}\n"
        "train.learning_rate: {low: 1e-4, high: 3e-3, log: true}\n"
        "train.frozen_stages: {low: 0, high: 4, step: 2}\n"
        "train.augmentation: [standard, strong]\n"
        "train.probe: [true, false]\n"
        "train.mixup_alpha: [0, 1]\n",
    )
    assert found.domains == {
        "train.learning_rate": Interval(1e-4, 3e-3, True, None, False),
        "train.frozen_stages": Interval(0, 4, False, 2, True),
        "train.augmentation": Choices(("standard", "strong")),
        "train.probe": Choices((True, False)),
        "train.mixup_alpha": Choices((0.0, 1.0)),
    }
    assert (found.settings.pruner, found.settings.seeds) == ("hyperband", 3)
    assert type(found.domains["train.mixup_alpha"].corners()[0]) is float


def test_a_trial_is_the_configuration_with_its_values_and_nothing_else_changed(tmp_path):
    found = read(tmp_path, "train.learning_rate: {low: 1e-4, high: 3e-3}\ntrain.loss: [bce, focal]")
    made = found.config({"train.learning_rate": 2e-3, "train.loss": "focal"}, seed=2)
    train = BASE.train.model_copy(update={"learning_rate": 2e-3, "loss": "focal"})
    assert made == BASE.model_copy(update={"train": train, "seed": BASE.seed + 2})


def test_the_command_lines_seeds_stand_above_the_files(tmp_path):
    assert read(tmp_path, "sweep: {seeds: 3}\ntrain.loss: [bce, focal]", seeds=2).settings.seeds == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "train.learning_rat: [1e-3, 1e-2]",
            r"unknown key 'train.learning_rat'; did you mean 'train.learning_rate'",
        ),
        ("train: {learning_rate: [1e-3, 1e-2]}", r"unknown key 'train'"),
        (
            "sweep: {prune: median}\ntrain.loss: [bce, focal]",
            r"sweep: unknown key 'prune'; did you mean 'pruner'",
        ),
        ("sweep: {pruner: none}", r"no key to search"),
        ("", r"expected keys and their values, found NoneType"),
        ("train.loss: [bce, focal]\ntrain.loss: [bce, balanced]", r"'train.loss' appears twice"),
        ("seed: [0, 1]", r"--seeds"),
        ("split.seed: [0, 1]", r"'split.seed' does not decide what a network learns from the same pictures"),
        ("calibrate.confidence: [0.9, 0.95]", r"does not decide"),
        ("train.workers: [0, 1]", r"controls how training is run, not what is learnt"),
        ("train.loss: [bce]", r"put a key with a single value in the configuration instead"),
        ("train.loss: bce", r"expected a list of values, or low and high"),
        ("train.loss: [bce, hinge]", r"train.loss: .*'bce', 'balanced' or 'focal'.*found 'hinge'"),
        ("train.loss: {low: 1, high: 2}", r"low and high are for numbers"),
        ("train.probe: {low: 0, high: 1}", r"low and high are for numbers"),
        ("train.mixup_alpha: [1, 1.0]", r"names a value twice"),
        ("train.label_smoothing: {low: 0, high: 0.5}", r"train.label_smoothing: .*less than 0.5; found 0.5"),
        ("train.learning_rate: {low: 0, high: 1, log: true}", r"low above 0"),
        ("train.learning_rate: {low: 2, high: 1}", r"low must lie below high"),
        ("train.learning_rate: {low: .nan, high: 1}", r"finite number"),
        ("train.learning_rate: {high: 1}", r"low: Field required"),
        (
            "train.learning_rate: {low: 1, high: 2, steps: 1}",
            r"unknown key 'steps'; did you mean 'step'",
        ),
        ("train.drop: {low: 0, high: 0.1}", r"unknown key"),
        ("train.frozen_stages: {low: 0, high: 2.5}", r"whole numbers only"),
        ("train.frozen_stages: {low: 0, high: 3, step: 2}", r"2 steps do not lead from 0 to 3"),
        ("train.probe: [false, true]\ntrain.cutmix_alpha: [0, 1]", r"cutmix needs pictures"),
        (
            "train.batch_size: [8, 32]\ntrain.accumulate: [1, 8]",
            r"batch_size of 8 leaves less than two pictures",
        ),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_in_one_sentence(tmp_path, text, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "space.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)

from __future__ import annotations

import pytest

from lesion_triage import config_file
from lesion_triage.errors import ConfigError
from lesion_triage.reproduce import initial_weights

TWO = "{backbone: vgg11, weights: hub}, {backbone: vgg13, weights: none, frozen_stages: 1}"


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("name: one\ndata: {source: synthetic}\nmodel: {backbone: resnet18, weights: hub}\n")
    return lambda *sets: config_file.load(path, sets)


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "lab #2: 🔬" / "weights"
    folder.mkdir(parents=True)
    for name in ("resnet18.first", "vgg11", "vgg11_bn.second"):
        (folder / f"{name}.safetensors").touch()
    return folder


def test_a_folder_gives_each_network_of_the_hub_its_own_file(loaded, weights):
    given = initial_weights.overrides(weights, loaded(f"ensemble.backbones=[{TWO}]"))
    found = loaded(f"ensemble.backbones=[{TWO}]", *given)
    assert found.model.weights == str(weights / "resnet18.first.safetensors")
    assert [(one.weights, one.frozen_stages) for one in found.ensemble.backbones] == [
        (str(weights / "vgg11.safetensors"), None),
        ("none", 1),
    ]


def test_a_file_is_that_of_the_only_network_and_random_ones_stay_random(loaded, weights):
    file = weights / "vgg11.safetensors"
    assert loaded(*initial_weights.overrides(file, loaded())).model.weights == str(file)
    random = loaded("model.weights=none")
    assert loaded("model.weights=none", *initial_weights.overrides(file, random)).model.weights == "none"


def test_one_file_for_two_backbones_and_a_folder_with_none_or_two_are_refused(loaded, weights):
    with pytest.raises(ConfigError, match="give a folder that holds a file for each"):
        initial_weights.overrides(weights / "vgg11.safetensors", loaded(f"ensemble.backbones=[{TWO}]"))
    with pytest.raises(ConfigError, match=r"0 files are named vgg19\.\*safetensors; expected one"):
        initial_weights.overrides(weights, loaded("model.backbone=vgg19"))
    (weights / "resnet18.other.safetensors").touch()
    with pytest.raises(ConfigError, match=r"2 files are named resnet18\.\*safetensors"):
        initial_weights.overrides(weights, loaded())

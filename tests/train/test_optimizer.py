from __future__ import annotations

import math

import pytest
import timm
import torch
from drawn import config
from timm.optim import param_groups_layer_decay

from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.optimizer import lr_schedule, parameter_groups
from lesion_triage.train.weights import create_backbone


def network(name: str) -> TriageNetwork:
    return TriageNetwork(create_backbone(name, "none", 64), diagnoses=3)


def told_apart(net: TriageNetwork, **arguments) -> dict[str, tuple[float, float]]:
    """Parameter -> (lr_scale, weight_decay)."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(net, **arguments)
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    return found


def test_without_layer_decay_kernels_decay_and_biases_norms_and_positions_do_not():
    found = told_apart(network("test_vit"), weight_decay=0.05, layer_decay=1.0)
    assert {scale for scale, _ in found.values()} == {1.0}
    assert found["backbone.blocks.0.attn.qkv.weight"] == (1.0, 0.05)
    assert found["needs_in_person.weight"] == (1.0, 0.05)
    for name in ("backbone.blocks.0.norm1.weight", "backbone.pos_embed", "diagnosis.bias"):
        assert found[name] == (1.0, 0.0), name


def test_layer_decay_of_a_transformer_by_hand():
    """Heads 1; six blocks, the last with the last norm, 0.5 to 0.5^6; patches and positions 0.5^7."""
    net = network("test_vit")
    assert len(net.backbone.blocks) == 6
    found = told_apart(net, weight_decay=0.05, layer_decay=0.5)
    expected = {
        "needs_in_person.weight": (1.0, 0.05),
        "diagnosis.bias": (1.0, 0.0),
        "backbone.norm.weight": (0.5, 0.0),
        "backbone.patch_embed.proj.weight": (0.5**7, 0.05),
        "backbone.pos_embed": (0.5**7, 0.0),
    }
    for block in range(6):
        rate = 0.5 ** (6 - block)
        expected[f"backbone.blocks.{block}.mlp.fc1.weight"] = (rate, 0.05)
        expected[f"backbone.blocks.{block}.mlp.fc1.bias"] = (rate, 0.0)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_what_timm_puts_in_no_layer_learns_as_a_last_one():
    found = told_apart(network("vit_srelpos_small_patch16_224"), weight_decay=0.05, layer_decay=0.5)
    assert found["backbone.shared_rel_pos.mlp.fc1.weight"] == (0.5, 0.05)
    assert found["backbone.blocks.11.mlp.fc1.weight"] == (0.25, 0.05)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_the_backbone_learns_at_the_rates_that_timm_gives_it_below_a_classifier_of_its_own(name):
    found = told_apart(network(name), weight_decay=0.05, layer_decay=0.7)
    classifier = timm.create_model(name, num_classes=3)
    names = {id(parameter): each for each, parameter in classifier.named_parameters()}
    expected = {
        f"backbone.{names[id(parameter)]}": (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(
            classifier, 0.05, getattr(classifier, "no_weight_decay", set)(), layer_decay=0.7
        )
        for parameter in group["params"]
    }
    ours = [each for each in found if each.startswith("backbone.")]
    assert len(ours) > 20
    for each in ours:
        assert found[each] == pytest.approx(expected[each]), each


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_layer_decay_never_rises_towards_the_stem(name):
    net = network(name)
    found = told_apart(net, weight_decay=0.05, layer_decay=0.7)
    rates = [found[each][0] for each, _ in net.named_parameters() if each.startswith("backbone.")]
    assert max(rates) == pytest.approx(0.7)
    assert rates[0] == min(rates) < 0.7**2
    assert found["needs_in_person.weight"][0] == 1.0


def test_what_is_frozen_is_in_no_group():
    net = network("test_efficientnet")
    net.backbone.conv_stem.requires_grad_(False)
    for decay in (1.0, 0.7):
        groups = parameter_groups(net, 0.05, decay)
        assert all(parameter.requires_grad for group in groups for parameter in group["params"])


def rates(epochs: int, batches: int, **section) -> list[float]:
    share = lr_schedule(config(epochs=epochs, **section).train, batches)
    return [share(step) for step in range(epochs * batches)]


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine():
    found = rates(epochs=3, batches=4, warmup_epochs=1.0)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4:] == pytest.approx([(1 + math.cos(math.pi * done / 8)) / 2 for done in range(8)])


def test_the_rate_is_that_of_torchs_own_schedulers():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    found = []
    for _ in range(20):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert rates(epochs=4, batches=5, warmup_epochs=0) == pytest.approx(found, abs=1e-6)


def test_half_an_epoch_of_warm_up_then_a_line_or_nothing():
    assert rates(2, 4, warmup_epochs=0.5, schedule="linear") == pytest.approx(
        [0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )
    assert rates(2, 4, warmup_epochs=0.5, schedule="constant") == [0.5] + [1.0] * 7

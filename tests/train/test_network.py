from __future__ import annotations

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from lesion_triage.errors import RetryableTrainingError, TrainingError
from lesion_triage.train.network import TriageNetwork, freeze_stages
from lesion_triage.train.weights import create_backbone

FAMILIES = ["test_efficientnet", "test_resnet", "test_vit", "test_convnext"]


def network(name: str = "test_efficientnet", size_px: int = 64) -> TriageNetwork:
    torch.manual_seed(0)
    return TriageNetwork(create_backbone(name, "none", size_px), diagnoses=3).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_one_logit_and_one_embedding_a_picture(name):
    net = network(name)
    served = net(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert served.logit.shape == (2,)
    assert served.embedding.shape == (2, net.width)


@pytest.mark.parametrize("name", [*FAMILIES, "test_byobnet", "hiera_tiny_224"])
def test_what_is_exported_has_the_bits_of_what_is_trained(name):
    size_px = 64 if name.startswith("test_") else 224
    net = network(name, size_px)
    pictures = torch.randint(0, 256, (2, size_px, size_px, 3), dtype=torch.uint8)
    with torch.inference_mode():
        served, heads = net(pictures), net.heads(net.embed(pictures))
    assert torch.equal(served.embedding, net.embed(pictures))
    assert torch.equal(served.logit, heads.logit)


@pytest.mark.parametrize(("name", "levels"), [("test_efficientnet", 4), ("test_resnet", 4), ("test_vit", 1)])
def test_the_novelty_gate_looks_at_middle_levels_and_never_at_the_deepest(name, levels):
    net = network(name)
    facts = net.backbone.feature_info
    assert len(net.middle) == levels
    assert len(facts) - 1 not in net.middle
    pictures = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    assert net(pictures).levels.shape == (2, sum(facts[index]["num_chs"] for index in net.middle))


def test_a_backbone_without_levels_is_judged_by_its_embedding():
    net = network()
    net.middle = ()
    served = net(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert torch.equal(served.levels, served.embedding)


def test_the_network_normalises_by_itself():
    net = network()
    seen = []
    net.backbone.conv_stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(torch.full((1, 64, 64, 3), 255, dtype=torch.uint8))
    mean, std = (torch.tensor(net.backbone.pretrained_cfg[key]) for key in ("mean", "std"))
    torch.testing.assert_close(seen[0][0, :, 0, 0], (1.0 - mean) / std)


def test_the_exported_path_does_not_touch_the_diagnosis_head():
    net = network()
    picture = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    before = net(picture)[0]
    torch.nn.init.constant_(net.diagnosis.weight, 7.0)
    assert torch.equal(net(picture)[0], before)


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_stages_do_not_learn_and_the_rest_does(name):
    net = network(name)
    frozen = freeze_stages(net, 1)
    trained = [parameter.requires_grad for parameter in net.backbone.parameters()]
    assert frozen
    assert any(trained)
    assert not all(trained)
    assert not any(parameter.requires_grad for module in frozen for parameter in module.parameters())


@pytest.mark.parametrize("name", ["vit_srelpos_small_patch16_224", "vit_small_patch16_rope_mixed_224"])
def test_no_gradient_goes_through_a_frozen_stage_for_what_all_stages_share(name):
    net = network(name)
    frozen = freeze_stages(net, 2)
    blocks = net.backbone.blocks
    assert list(blocks[:2]) == [module for module in blocks if module in frozen]
    learnt = []
    for block in blocks:
        block.register_forward_hook(lambda module, _, found: learnt.append(found.requires_grad))
    net.embed(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert learnt == [False] * 2 + [True] * (len(blocks) - 2)


def test_a_weight_of_a_later_stage_is_not_frozen_for_standing_before_an_earlier_one():
    net = network("visformer_tiny", 224)
    freeze_stages(net, 1)
    names = [name for name, parameter in net.backbone.named_parameters() if not parameter.requires_grad]
    assert "pos_embed1" in names
    assert not {"pos_embed2", "pos_embed3"} & set(names)


def test_freezing_everything_is_refused():
    with pytest.raises(TrainingError, match="leaves nothing to train"):
        freeze_stages(network(), 1000)


def test_a_local_file_fills_the_backbone_and_its_classifier_is_set_aside(tmp_path):
    source = create_backbone("test_efficientnet", "none", 64)
    state = {**source.state_dict(), "classifier.weight": torch.ones(2, 2), "classifier.bias": torch.ones(2)}
    save_file(state, tmp_path / "weights.safetensors")
    filled = create_backbone("test_efficientnet", str(tmp_path / "weights.safetensors"), 64)
    for name, value in source.state_dict().items():
        assert torch.equal(filled.state_dict()[name], value), name


def test_a_folder_in_place_of_a_file_of_weights_is_called_one(tmp_path):
    with pytest.raises(TrainingError, match="is a folder; expected one safetensors file"):
        create_backbone("test_efficientnet", str(tmp_path), 64)


def test_the_file_of_another_backbone_is_refused(tmp_path):
    save_file(create_backbone("test_resnet", "none", 64).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match="does not fit the backbone"):
        create_backbone("test_efficientnet", str(tmp_path / "other.safetensors"), 64)


def test_a_file_with_one_tensor_missing_is_refused_by_name(tmp_path):
    state = create_backbone("test_efficientnet", "none", 64).state_dict()
    del state["conv_stem.weight"]
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(TrainingError, match=r"1 tensors missing.*conv_stem\.weight"):
        create_backbone("test_efficientnet", str(tmp_path / "short.safetensors"), 64)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(TrainingError, match="cannot be read as safetensors"):
        create_backbone("test_efficientnet", str(tmp_path / "text.safetensors"), 64)


def test_an_unknown_backbone_is_answered_with_the_nearest():
    with pytest.raises(TrainingError, match="did you mean 'resnet18'"):
        create_backbone("resnet81", "none", 64)


def test_a_backbone_without_stochastic_depth_is_made_at_a_rate_of_0_and_refuses_another_by_name():
    assert create_backbone("densenet121", "none", 64, 0.2, 0.0).head_hidden_size == 1024
    for weights in ("none", "hub"):
        with pytest.raises(
            TrainingError, match=r"'densenet121' takes no drop_path_rate, found 0\.1; set mod"
        ) as e:
            create_backbone("densenet121", weights, 64, 0.2, 0.1)
        assert "hub" not in str(e.value)


def test_a_backbone_that_refuses_a_rate_in_words_of_its_own_is_made_as_well():
    assert create_backbone("hrnet_w18_small", "none", 64, 0.0, 0.0).head_hidden_size == 2048
    with pytest.raises(TrainingError, match=r"'hrnet_w18_small' takes no drop_path_rate, found 0\.1"):
        create_backbone("hrnet_w18_small", "none", 64, 0.0, 0.1)


def test_stages_that_timm_cannot_name_are_refused_in_one_sentence():
    network = TriageNetwork(create_backbone("rdnet_tiny", "none", 64), 2)
    with pytest.raises(TrainingError, match=r"only layer by layer; set train\.frozen_stages to 0"):
        freeze_stages(network, 1)


def test_the_hub_is_blamed_where_a_backbone_can_be_made_without_it(monkeypatch, tmp_path):
    """Told to be offline, the hub's library fails as it does without a network, but at once."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RetryableTrainingError, match=r"if the hub is out of reach, set model\.weights"):
        create_backbone("test_efficientnet", "hub", 64)


def test_the_hub_is_not_blamed_for_weights_that_do_not_exist():
    with pytest.raises(TrainingError, match=r"timm has no pretrained weights of .*'ghostnet_050'") as caught:
        create_backbone("ghostnet_050", "hub", 64)
    assert not isinstance(caught.value, RetryableTrainingError)

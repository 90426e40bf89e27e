from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from PIL import Image

from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.calibrate.novelty import fit_novelty_model
from lesion_triage.errors import ExportError
from lesion_triage.export.novelty import attach, levels_of
from lesion_triage.export.onnx_graph import Views, convert
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import create_backbone

SIZE = 64


def network(name: str = "test_efficientnet") -> TriageNetwork:
    torch.manual_seed(0)
    return TriageNetwork(create_backbone(name, "none", SIZE), diagnoses=2).eval()


@cache
def written(name: str, views: int, center_crop: float = 1.0) -> bytes:
    """The graph of that network; an export costs seconds."""
    return convert(network(name), SIZE, views, 20, center_crop)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
@pytest.mark.parametrize(("views", "center_crop"), [(1, 1.0), (4, 1.0), (8, 0.8)])
def test_the_graph_agrees_with_the_network_at_any_batch_size(pixels, name, views, center_crop):
    net = network(name)
    graph = written(name, views, center_crop)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        logit, embedding, levels = Views(net, views, center_crop)(torch.from_numpy(pixels))
    for batch in (1, 2, 5):
        found = session.run(["logit", "embedding", "levels"], {"pixels": pixels[:batch]})
        np.testing.assert_allclose(found[0], logit[:batch].numpy(), atol=1e-5)
        np.testing.assert_allclose(found[1], embedding[:batch].numpy(), atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(found[2], levels[:batch].numpy(), atol=1e-4, rtol=1e-4)


def test_attention_that_the_exporter_does_not_know_is_written_out_in_its_parts(pixels):
    """BEiT's, with a bias for each pair of patches, which torch has as one operation."""
    small = timm.create_model(
        "beit_base_patch16_224", num_classes=0, img_size=SIZE, embed_dim=48, depth=2, num_heads=2
    )
    net = TriageNetwork(small, diagnoses=2).eval()
    session = ort.InferenceSession(convert(net, SIZE, 2, 20), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        logit = Views(net, 2)(torch.from_numpy(pixels))[0]
    np.testing.assert_allclose(session.run(["logit"], {"pixels": pixels})[0], logit.numpy(), atol=1e-5)
    assert all(block.attn.fused_attn for block in small.blocks)  # as it was


def test_the_graph_fulfils_the_contract_of_the_scorer(pixels):
    plain = written("test_efficientnet", 4)
    graph = Graph(attach(plain, fit_novelty_model(levels_of(plain, pixels))), PixelSpec(size_px=SIZE))
    assert isinstance(graph.logit(pixels[0]), float)


def test_eight_views_answer_the_same_however_the_picture_is_turned(pixels):
    module = Views(network(), 8)
    picture = pixels[0]
    turned = [np.rot90(picture, k) for k in range(4)]
    turned += [t.transpose(1, 0, 2) for t in turned]
    with torch.inference_mode():
        logits = [module(torch.from_numpy(np.ascontiguousarray(t))[None])[0].item() for t in turned]
    np.testing.assert_allclose(logits, logits[0], atol=1e-5)


@pytest.mark.parametrize(("views", "turns"), [(4, (0, 2)), (8, (0, 1, 2, 3))])
def test_with_centre_crops_the_answer_is_the_same_however_the_camera_was_turned(pixels, views, turns):
    module = Views(network(), views, 0.75)
    turned = [torch.from_numpy(np.rot90(pixels[0], k).copy())[None] for k in turns]
    with torch.inference_mode():
        logits = [module(each)[0].item() for each in turned]
    np.testing.assert_allclose(logits, logits[0], atol=1e-5)


def test_half_of_the_views_show_the_whole_and_half_the_middle_enlarged(pixels):
    """The middle by another library: Pillow, which enlarges by the same bilinear rule."""
    seen: list[torch.Tensor] = []

    class Watch(torch.nn.Module):
        def forward(self, stacked):
            seen.append(stacked)
            return tuple(stacked.float().mean((1, 2, 3), keepdim=True)[:, 0] for _ in range(3))

    Views(Watch(), 2, 0.75)(torch.from_numpy(pixels[:1]))
    whole, middle = seen[0]
    assert torch.equal(whole, torch.from_numpy(pixels[0]).float())
    cut = Image.fromarray(pixels[0]).crop((8, 8, 56, 56)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(middle.flip(1).numpy(), np.asarray(cut, np.float32), atol=1)


def test_one_view_is_either_the_whole_or_the_middle():
    with pytest.raises(ValueError, match="needs two views"):
        Views(network(), 1, 0.8)


def test_one_view_is_the_network_itself(pixels):
    net = network()
    batch = torch.from_numpy(pixels)
    with torch.inference_mode():
        assert torch.equal(Views(net, 1)(batch)[0], net(batch)[0])


def test_the_graph_names_neither_the_machine_nor_its_source_files():
    graph = written("test_efficientnet", 1)
    for trace in (b"site-packages", b".py", b"/home", b"lesion_triage"):
        assert trace not in graph


def test_the_same_network_gives_the_same_bytes():
    assert convert(network(), SIZE, 1, 20) == written("test_efficientnet", 1)


def test_the_diagnosis_head_is_not_in_the_graph():
    model = onnx.load_from_string(written("test_efficientnet", 1))
    assert [output.name for output in model.graph.output] == ["logit", "embedding", "levels"]
    assert not [tensor.name for tensor in model.graph.initializer if "diagnosis" in tensor.name]


def test_an_opset_that_cannot_be_written_is_one_sentence():
    with pytest.raises(ExportError) as caught:
        convert(network(), SIZE, 1, 9999)
    assert "\n" not in str(caught.value)

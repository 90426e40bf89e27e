"""The distance inside the graph is the one that was fitted, and it leaves the logit alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from lesion_triage.calibrate.novelty import fit_novelty_model
from lesion_triage.export.novelty import attach, levels_of
from lesion_triage.export.onnx_graph import convert
from lesion_triage.train.ensemble import Ensemble
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import create_backbone

SIZE = 64


@pytest.fixture(scope="module", params=["test_efficientnet", "test_vit", "two members"])
def plain(request) -> bytes:
    torch.manual_seed(0)
    name = "test_efficientnet" if request.param == "two members" else request.param
    members = [TriageNetwork(create_backbone(name, "none", SIZE), diagnoses=2).eval() for _ in range(2)]
    network = Ensemble(members).eval() if request.param == "two members" else members[0]
    return convert(network, SIZE, 2, 20)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3)).astype(np.uint8)


def session(graph: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def test_the_graph_computes_the_fitted_distance_at_any_batch_size(plain, pictures):
    novelty_model = fit_novelty_model(levels_of(plain, pictures[:16]))
    graph = session(attach(plain, novelty_model))
    for batch in (1, 3, 8):
        (found,) = graph.run(["novelty"], {"pixels": pictures[16 : 16 + batch]})
        expected = novelty_model.novelty(levels_of(plain, pictures[16 : 16 + batch]))
        assert found.shape == (batch,)
        np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_the_part_that_is_run_for_the_levels_says_what_the_whole_graph_says(plain, pictures):
    whole = session(plain)
    expected = [whole.run(["levels"], {"pixels": one[np.newaxis]})[0][0] for one in pictures]
    np.testing.assert_allclose(levels_of(plain, pictures), expected, rtol=1e-5, atol=1e-6)


def test_logit_and_embedding_keep_their_bits(plain, pictures):
    graph = session(attach(plain, fit_novelty_model(levels_of(plain, pictures))))
    for before, after in zip(
        session(plain).run(["logit", "embedding"], {"pixels": pictures[:1]}),
        graph.run(["logit", "embedding"], {"pixels": pictures[:1]}),
        strict=True,
    ):
        assert before.tobytes() == after.tobytes()


def test_the_levels_are_no_output_of_what_is_sealed_and_the_bytes_are_reproducible(plain, pictures):
    novelty_model = fit_novelty_model(levels_of(plain, pictures))
    graph = attach(plain, novelty_model)
    assert [output.name for output in onnx.load_from_string(graph).graph.output] == [
        "logit",
        "embedding",
        "novelty",
    ]
    assert graph == attach(plain, novelty_model)


def test_progress_counts_every_picture(plain, pictures):
    told = []
    levels = levels_of(plain, pictures[:5], lambda done, of: told.append((done, of)))
    assert told == [(n, 5) for n in range(1, 6)]
    assert len(levels) == 5

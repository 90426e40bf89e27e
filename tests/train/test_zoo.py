"""Any backbone of timm: one of each family is trained for two steps, exported and compared with its graph.

`make torture-zoo`. The weights are random: the question is whether a family goes through the pipeline, or is
refused before anything is trained, with a sentence that says what to change.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import timm
import torch
from drawn import config, pictures

from lesion_triage.config import Config
from lesion_triage.errors import TrainingError
from lesion_triage.export.onnx_graph import Views, convert
from lesion_triage.train import checkpoint, preflight
from lesion_triage.train.loop import Pictures, train

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

SIZE = 64
FAMILIES = Path(__file__).with_name("zoo.txt").read_text().split()
REFUSED = {
    "bat_resnext26ts": "takes no pictures of 64 px",
    "crossvit_tiny_240": "takes no pictures of 64 px",
    "efficientformer_l1": "takes no pictures of 64 px",
    "halonet26t": "takes no pictures of 64 px",
}
"""Families that cannot be used as they are here, and what their user is told to change."""


def drawn(cases: int, seed: int) -> Pictures:
    small = pictures(cases, seed)
    return Pictures(small.records, small.pixels.repeat(SIZE // 32, axis=1).repeat(SIZE // 32, axis=2))


def settings(name: str, stochastic_depth: bool = True) -> Config:
    made = config(name, 0.1, epochs=1, layer_decay=0.9, mixup_alpha=0.2)
    model = made.model.model_copy(update={} if stochastic_depth else {"drop_path_rate": 0.0})
    pixels = made.pixels.model_copy(update={"size_px": SIZE})
    return made.model_copy(update={"model": model, "pixels": pixels})


def refused(chosen: Config) -> str:
    """What is said before a training of these settings begins; empty if it may."""
    try:
        preflight.check_network(chosen)
    except TrainingError as refusal:
        return str(refusal)
    return ""


def test_every_family_named_here_is_one_of_timm():
    assert set(FAMILIES) <= set(timm.list_models())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_through_the_whole_pipeline_or_is_refused_before_it_is_trained(name, tmp_path):
    chosen = settings(name)
    refusal = refused(chosen)
    if name in REFUSED:
        assert REFUSED[name] in refusal
        return
    if refusal:
        assert refusal.startswith(f"backbone '{name}' takes no drop_path_rate, found 0.05; set model.")
        chosen = settings(name, stochastic_depth=False)
        assert refused(chosen) == ""
    train(chosen, drawn(16, 0), drawn(8, 1), tmp_path, "key")
    network = Views(checkpoint.load_checkpoint(tmp_path), 2).eval()
    pixels = drawn(6, 2).pixels
    session = ort.InferenceSession(
        convert(checkpoint.load_checkpoint(tmp_path), SIZE, 2, chosen.export.opset),
        providers=["CPUExecutionProvider"],
    )
    with torch.inference_mode():
        logit, embedding, _ = network(torch.from_numpy(pixels))
        served = network.network(torch.from_numpy(pixels))
        trained = network.network.embed(torch.from_numpy(pixels))
    torch.testing.assert_close(served.embedding, trained)
    for batch in (1, 6):
        found = session.run(["logit", "embedding"], {"pixels": pixels[:batch]})
        np.testing.assert_allclose(found[0], logit[:batch].numpy(), atol=1e-3)
        assert found[1].shape == (batch, *embedding.shape[1:])
    assert np.ptp(logit.numpy()) > 0, "it says the same of every picture"
    del network, session
    gc.collect()

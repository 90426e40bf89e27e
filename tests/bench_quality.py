"""``make bench``: what the safety net costs, as a share of scoring one photograph in the same run."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import torch

from bench import alternate, jpeg
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.quality import assess_quality
from lesion_triage.bundle.schema import PixelSpec, QualityLimits
from lesion_triage.calibrate.novelty import fit_novelty_model
from lesion_triage.export import novelty
from lesion_triage.export.onnx_graph import convert
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import create_backbone

SIZE_PX, REPEATS = 160, 10
"""One call is too short for the processor's clock."""


def main() -> None:
    """Print the ratios: of a graph with one view, and with the four of configs/ham10000.yaml."""
    spec, limits = PixelSpec(size_px=SIZE_PX), QualityLimits()
    torch.manual_seed(0)
    network = TriageNetwork(create_backbone("tf_efficientnet_lite0", "none", SIZE_PX), diagnoses=2).eval()
    noise = np.random.default_rng(0).integers(0, 256, (20, SIZE_PX, SIZE_PX, 3)).astype(np.uint8)
    for views in (1, 4):
        plain = convert(network, SIZE_PX, views, 20)
        gated = session(novelty.attach(plain, fit_novelty_model(novelty.levels_of(plain, noise))))
        bare = session(without_levels(plain))
        for width, height in ((600, 450), (4000, 3000)):
            data = jpeg(width, height)
            assert not assess_quality(decode(data, spec), limits).refusals  # else the graph would not be run
            with_net = functools.partial(scored, gated, data, spec, limits)
            without = functools.partial(scored, bare, data, spec, None)
            gate = functools.partial(assess_quality, decode(data, spec), limits)
            what = f"{width}x{height} JPEG, lite0, {views} view(s)"
            print(f"scoring with both gates / with none, {what}: {ratio(with_net, without)}")
            print(f"quality gate alone / scoring with none, {what}: {ratio(gate, without)}")


def session(graph: bytes) -> ort.InferenceSession:
    """One thread, as the scorer runs it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def without_levels(graph: bytes) -> bytes:
    """The graph as it would be if nobody asked what is familiar."""
    extractor = onnx.utils.Extractor(onnx.load_from_string(graph))
    return bytes(extractor.extract_model(["pixels"], ["logit", "embedding"]).SerializeToString())


def scored(graph: ort.InferenceSession, data: bytes, spec: PixelSpec, limits: QualityLimits | None) -> None:
    """The way of one photograph; ``limits`` None leaves the quality gate out."""
    picture = decode(data, spec)
    if limits is not None:
        assess_quality(picture, limits)
    graph.run(None, {"pixels": picture.pixels[np.newaxis]})


def ratio(one: Callable[[], object], other: Callable[[], object]) -> str:
    """CPU time of one over that of the other, in turns."""
    return alternate(functools.partial(_repeat, one), functools.partial(_repeat, other), 9)


def _repeat(action: Callable[[], object]) -> None:
    for _ in range(REPEATS):
        action()


if __name__ == "__main__":
    main()

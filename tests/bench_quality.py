"""``make bench``: what the quality gate costs, as a share of scoring one photograph in the same run."""

from __future__ import annotations

import functools

import torch

from bench import alternate, jpeg
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.quality import assess
from lesion_triage.bundle.schema import PixelSpec, QualityLimits
from lesion_triage.bundle.scorer import Graph, score_image
from lesion_triage.export.onnx_graph import convert
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import backbone

SIZE_PX, REPEATS = 160, 20
"""One call is too short for the processor's clock."""


def main() -> None:
    """Print the shares: of a graph with one view, and with the four of configs/ham10000.yaml."""
    spec, limits = PixelSpec(size_px=SIZE_PX), QualityLimits()
    torch.manual_seed(0)
    network = TriageNetwork(backbone("tf_efficientnet_lite0", "none", SIZE_PX), diagnoses=2).eval()
    for views in (1, 4):
        graph = Graph(convert(network, SIZE_PX, views, 20), spec)
        for width, height in ((600, 450), (4000, 3000)):
            data = jpeg(width, height)
            picture = decode(data, spec)
            assert not assess(picture, limits).refusals  # else the graph would not be run

            share = alternate(
                functools.partial(_repeat, functools.partial(assess, picture, limits)),
                functools.partial(_repeat, functools.partial(score_image, graph, spec, limits, data)),
                9,
            )
            print(f"quality gate / scoring, {width}x{height} JPEG, lite0, {views} views: {share}")


def _repeat(action: functools.partial[object]) -> None:
    for _ in range(REPEATS):
        action()


if __name__ == "__main__":
    main()

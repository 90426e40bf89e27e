"""The graph computes what it says, and what is none is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_bundle as tiny
from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.errors import BundleError, ScoringError


@given(st.integers(0, 2**32 - 1))
def test_graph_computes_what_it_says(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = Graph(tiny.GRAPH, tiny.PIXEL_SPEC).run(pixels)
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0)
    assert found.embedding == pytest.approx([red, green, blue], rel=1e-5)
    assert found.logit == pytest.approx((red - blue) / 10 - 5, abs=1e-4)
    squares = ((red - 200) / 40) ** 2, ((green - 150) / 40) ** 2, ((blue - 130) / 40) ** 2
    assert found.novelty == pytest.approx(sum(squares) / 3, rel=1e-4)


def test_logit_alone_has_the_bits_of_all_outputs_together() -> None:
    graph = Graph(tiny.GRAPH, tiny.PIXEL_SPEC)
    pixels = decode(tiny.picture_bytes("referred"), tiny.PIXEL_SPEC).pixels
    assert graph.logit(pixels) == graph.run(pixels).logit


@pytest.mark.parametrize("data", [b"", b"no graph", tiny.GRAPH[:100], b"\x00" * 1000])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx"):
        Graph(data, tiny.PIXEL_SPEC)


def test_a_graph_for_another_size_is_refused() -> None:
    with pytest.raises(BundleError, match=r"\(64, 64, 3\)"):
        Graph(tiny.GRAPH, PixelSpec(size_px=64))


@pytest.mark.parametrize("name", [b"logit", b"embedding", b"novelty", b"pixels"])
def test_a_graph_with_other_names_is_refused(name: bytes) -> None:
    with pytest.raises(BundleError, match="inputs and outputs"):
        Graph(tiny.GRAPH.replace(name, b"x" * len(name)), tiny.PIXEL_SPEC)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((32, 32, 3), np.float32), np.zeros((1, 32, 32, 3), np.uint8), np.zeros((3, 32, 32), np.uint8)],
    ids=["type", "batch", "channels first"],
)
def test_pixels_of_another_shape_or_type_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ScoringError, match="uint8"):
        Graph(tiny.GRAPH, tiny.PIXEL_SPEC).logit(pixels)

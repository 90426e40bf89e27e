"""The committed graph is what its script writes."""

import make_tiny_graph
import tiny_bundle


def test_committed_graph_is_what_the_script_writes() -> None:
    assert make_tiny_graph.graph_bytes() == tiny_bundle.GRAPH
    assert tiny_bundle.PIXEL_SPEC.size_px == make_tiny_graph.SIZE_PX


def test_committed_graph_is_small() -> None:
    assert len(tiny_bundle.GRAPH) < 5_000

"""What a peer does with a photograph: the floor's work, or the whole case as our server answers it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle


def loaded_work() -> Callable[[bytes], str]:
    """From a photograph's bytes to JSON, by the bundle in ``BENCH_BUNDLE``; ``BENCH_WORK`` says how much."""
    bundle = open_bundle(Path(os.environ["BENCH_BUNDLE"]))
    if os.environ["BENCH_WORK"] == "case":
        scorer = Scorer(bundle)
        return lambda data: scorer.score([data]).to_json()
    spec, graph = bundle.header.pixels, Graph(bundle.graph, bundle.header.pixels)
    return lambda data: f'{{"logit": {graph.run(decode(data, spec).pixels).logit}}}'

"""BentoML: several workers, each with HTTP and model. The photograph is the raw body, handed on as a file."""
# No future annotations: BentoML looks at the types themselves.

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.store import open_bundle


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    traffic={"timeout": 120},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Scoring:
    """One graph in each worker."""

    def __init__(self) -> None:
        bundle = open_bundle(Path(os.environ["BENCH_BUNDLE"]))
        self.spec = bundle.header.pixels
        self.graph = Graph(bundle.graph, self.spec)

    @bentoml.api(route="/score")
    def score(self, picture: Annotated[Path, ContentType("image/jpeg")], /) -> dict[str, float]:
        return {"logit": self.graph.run(decode(picture.read_bytes(), self.spec).pixels).logit}

"""LitServe: one process for HTTP, workers behind queues. The photograph is the raw body."""
# No future annotations: LitServe looks at the types themselves.

import os
from pathlib import Path
from typing import Annotated

import litserve
from fastapi import Body

from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.store import open_bundle


class Scoring(litserve.LitAPI):
    """One graph in each worker."""

    def setup(self, device: str) -> None:
        bundle = open_bundle(Path(os.environ["BENCH_BUNDLE"]))
        self.spec = bundle.header.pixels
        self.graph = Graph(bundle.graph, self.spec)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        return request

    def predict(self, picture: bytes) -> float:
        return self.graph.run(decode(picture, self.spec).pixels).logit

    def encode_response(self, output: float) -> dict[str, float]:
        return {"logit": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        Scoring(), accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"]), timeout=120
    )
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="error"
    )

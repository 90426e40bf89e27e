"""LitServe: one process for HTTP, workers behind queues. The photograph is the raw body."""
# No future annotations: LitServe looks at the types themselves.

import os
from typing import Annotated

import litserve
from fastapi import Body, Response
from peer_work import loaded_work


class Scoring(litserve.LitAPI):
    """One graph in each worker."""

    def setup(self, device: str) -> None:
        self.work = loaded_work()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        return request

    def predict(self, picture: bytes) -> str:
        return self.work(picture)

    def encode_response(self, output: str) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(
        Scoring(), accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"]), timeout=120
    )
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="error"
    )

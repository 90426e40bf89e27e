"""BentoML: several workers, each with HTTP and model. The photograph is the raw body, handed on as a file."""
# No future annotations: BentoML looks at the types themselves.

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from peer_work import loaded_work


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    traffic={"timeout": 120},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Scoring:
    """One graph in each worker."""

    def __init__(self) -> None:
        self.work = loaded_work()

    @bentoml.api(route="/score")
    def score(
        self, picture: Annotated[Path, ContentType("image/jpeg")], /
    ) -> Annotated[str, ContentType("application/json")]:
        return self.work(picture.read_bytes())

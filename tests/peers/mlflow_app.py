"""mlflow models serve: a pyfunc around the graph. It takes JSON, so the photograph comes in base64.

python mlflow_app.py FOLDER writes the model.
"""

import base64
import os
import sys
from pathlib import Path

import mlflow

from lesion_triage.bundle.graph import Graph
from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.store import open_bundle


class Scoring(mlflow.pyfunc.PythonModel):
    """One graph in each worker."""

    def load_context(self, context: object) -> None:
        bundle = open_bundle(Path(os.environ["BENCH_BUNDLE"]))
        self.spec = bundle.header.pixels
        self.graph = Graph(bundle.graph, self.spec)

    def predict(self, model_input: list[str]) -> list[float]:
        return [self.graph.run(decode(base64.b64decode(one), self.spec).pixels).logit for one in model_input]


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=__file__, pip_requirements=["mlflow"])
else:
    mlflow.models.set_model(Scoring())

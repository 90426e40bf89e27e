"""mlflow models serve: a pyfunc around the graph. It takes JSON, so the photograph comes in base64.

python mlflow_app.py FOLDER writes the model.
"""

import base64
import sys

import mlflow
from peer_work import loaded_work


class Scoring(mlflow.pyfunc.PythonModel):
    """One graph in each worker."""

    def load_context(self, context: object) -> None:
        self.work = loaded_work()

    def predict(self, model_input: list[str]) -> list[str]:
        return [self.work(base64.b64decode(one)) for one in model_input]


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=__file__, pip_requirements=["mlflow"])
else:
    mlflow.models.set_model(Scoring())

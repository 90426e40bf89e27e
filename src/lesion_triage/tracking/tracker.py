"""One MLflow run beside one run folder. Imports config, locks and this package's settings for MLflow.

A tracking server that is down costs a warning, never a run: training must not depend on it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Config
from lesion_triage.errors import without_password
from lesion_triage.locks import hold_lock
from lesion_triage.tracking.quiet import quiet

RUN_ID_FILE = "mlflow_run_id.txt"
LOCK = ".mlflow.lock"
"""Beside the local database: held while it is opened, and made if it is missing."""
DIGEST_LENGTH = 36
"""Length to which MLflow keeps a dataset's digest."""

_PARAM_LENGTH = 6000
"""Length to which MLflow keeps a parameter."""

_REASON_LENGTH = 200

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "albumentations",
    "scikit-learn",
    "onnx",
    "onnxruntime",
    "numpy",
    "pillow",
)


class Tracker:
    """One MLflow run beside one run folder, reopened by every stage.

    Best effort: the first failure is reported through ``warn`` and ends the tracking. No name of a picture is
    sent, and no folder; hashes and counts are.
    """

    def __init__(self, config: Config, folder: Path, warn: Callable[[str], None], parent: str = "") -> None:
        """Open the MLflow run of a run folder, or create one.

        Args:
            config: of the run.
            folder: of the run.
            warn: called once if there is no tracking.
            parent: ``run_id`` of the MLflow run under which a new one is nested; empty: it is not nested.
        """
        self._warn = warn
        self._client: Any = None
        self._run_id = ""
        self._params: dict[str, str] = {}
        self._changed: frozenset[str] = frozenset()
        self._tags = {"mlflow.parentRunId": parent} if parent else {}
        if config.tracking.enabled:
            self._best_effort(lambda: self._open(config, folder))

    def _open(self, config: Config, folder: Path) -> None:
        with quiet():
            client, experiment = _open_experiment(config, folder)
            note = folder / RUN_ID_FILE
            if (known := _find_run(client, note)) is not None:
                self._run_id = known.info.run_id
                self._params = dict(known.data.params)
                self._changed = frozenset(known.data.tags) & frozenset(known.data.params)
            else:
                self._run_id = client.create_run(
                    experiment, run_name=folder.name, tags=self._tags
                ).info.run_id
                write_atomically(note, f"{self._run_id}\n".encode())
        self._client = client

    @property
    def run_id(self) -> str:
        """MLflow's id of this run; empty if nothing is tracked."""
        return self._run_id if self._client is not None else ""

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters. MLflow keeps the first value of each and refuses a change, which becomes a tag.

        Settings of how a run is executed, such as the number of devices, may change from command to command.
        """
        told = {key: str(value)[:_PARAM_LENGTH] for key, value in values.items()}
        self._batch("params", {key: value for key, value in told.items() if key not in self._params})
        changed = {
            key: value
            for key, value in told.items()
            # A value that has returned to its first one still has a tag that says otherwise.
            if self._params.get(key, value) != value or key in self._changed
        }
        self._batch("tags", changed)
        self._params = {**told, **self._params}
        self._changed |= changed.keys()

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags; the last value counts."""
        self._batch("tags", values)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at a step, in one request."""
        self._batch("metrics", values, step)

    def metric_history(self, name: str) -> dict[int, float]:
        """Values of a metric logged so far, by step, the last of each; empty if nothing is tracked."""
        found: list[Any] = []
        if self._client is not None:
            history = self._client.get_metric_history
            self._best_effort(lambda: found.extend(history(self._run_id, name)))
        return {point.step: point.value for point in sorted(found, key=lambda point: point.timestamp)}

    def _batch(self, kind: str, values: Mapping[str, Any], step: int = 0) -> None:
        if self._client is None:
            return

        def send() -> None:
            from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

            now = int(time.time() * 1000)
            make: dict[str, Callable[[str, Any], Any]] = {
                "params": Param,
                "tags": lambda key, value: RunTag(key, str(value)[:5000]),
                "metrics": lambda key, value: Metric(key, float(value), now, step),
            }
            entities = [make[kind](key, value) for key, value in values.items()]
            for start in range(0, len(entities), 100):
                self._client.log_batch(self._run_id, **{kind: entities[start : start + 100]})

        self._best_effort(send)

    def dataset(self, source: str, split: str, hashes: Mapping[str, str], counts: Mapping[str, int]) -> None:
        """Log which data the run uses: the dataset's name, split and hash, and no file names.

        Args:
            source: the manifest's name for the dataset.
            split: MLflow's context.
            hashes: ``manifest_sha256`` and ``splits_sha256``. The digest is the manifest's, cut to the 36
                digits that MLflow keeps: equal digests mean equal data.
            counts: how many photographs, cases and positives.
        """
        if self._client is None:
            return

        def send() -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

            said = json.dumps(dict(hashes), sort_keys=True)
            data = Dataset(
                # MLflow identifies a dataset by name and digest, with one context: so one name per split.
                name=f"{source}: {split}",
                digest=hashes["manifest_sha256"][:DIGEST_LENGTH],
                source_type="manifest",
                source=said,
                profile=json.dumps(dict(counts), sort_keys=True),
            )
            tags = [InputTag("mlflow.data.context", split)]
            self._client.log_inputs(self._run_id, datasets=[DatasetInput(data, tags)])

        self._best_effort(send)

    def artifact(self, path: Path, under: str | None = None) -> None:
        """Copy a file or a folder into the run."""
        if self._client is None:
            return
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._best_effort(lambda: send(self._run_id, str(path), under))

    def text(self, content: str, name: str) -> None:
        """Store a small text under a name."""
        if self._client is not None:
            self._best_effort(lambda: self._client.log_text(self._run_id, content, name))

    def finish(self, status: str = "FINISHED") -> None:
        """Mark the run FINISHED, FAILED or KILLED."""
        if self._client is not None:
            self._best_effort(lambda: self._client.set_terminated(self._run_id, status))

    def _best_effort(self, action: Callable[[], None]) -> None:
        try:
            with quiet():
                action()
        except Exception as error:  # nothing that goes wrong here may stop a training run
            self._client = None
            self._warn(
                f"MLflow tracking is off for the rest of this command ({_reason(error)}); the run folder "
                "still holds everything."
            )


def _open_experiment(config: Config, folder: Path) -> tuple[Any, str]:
    """A client of MLflow, and the id of the configured experiment, which is created if missing."""
    from mlflow.tracking import MlflowClient  # noqa: PLC0415 - seconds to import, and optional

    if config.tracking.uri:
        client = MlflowClient(tracking_uri=config.tracking.uri)
        return client, experiment_id(client, config.tracking.experiment, None)
    with hold_lock(folder.resolve().parent.parent / LOCK):  # two at once would both make the tables
        client = MlflowClient(tracking_uri=local_uri(folder))
        return client, experiment_id(client, config.tracking.experiment, local_artifacts(folder))


def _find_run(client: Any, note: Path) -> Any:
    """The MLflow run that a run folder names; None: it names none, or one that this database lacks."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if not note.exists():
        return None
    try:
        return client.get_run(note.read_text(encoding="utf-8").strip())
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _reason(error: Exception) -> str:
    """The kind of an error and the beginning of its message, in one line."""
    words = without_password(" ".join(str(error).split()))
    return f"{type(error).__name__}: {words[:_REASON_LENGTH]}{'...' if len(words) > _REASON_LENGTH else ''}"


def local_uri(folder: Path) -> str:
    """The database beside the runs, for the run in ``folder``."""
    return f"sqlite:///{folder.resolve().parent.parent / 'mlflow.db'}"


def local_artifacts(folder: Path) -> str:
    """Where files belonging to the database beside the runs are stored."""
    return (folder.resolve().parent.parent / "mlartifacts").as_uri()


def experiment_id(client: Any, name: str, location: str | None) -> str:
    """Id of an experiment, created if missing; on a shared server another client may create it meanwhile."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            known = client.get_experiment_by_name(name)
    return str(known.experiment_id)


def flat_params(config: Config) -> dict[str, object]:
    """Parameters in MLflow's form: dotted names, without locations of data, weights or tracking.

    Of a table of cases and of a file of weights the name is left, without its folder. Each part of a mixture
    has names of its own, such as ``data.mixture.1.source``, and so has each further backbone.
    """
    tree = config.model_dump(mode="json", exclude={"tracking": True, "data": True})
    tree["data"] = config.data.identity()
    for place in (tree["data"], *tree["data"]["mixture"]):
        place["table"] = Path(place["table"]).name
    for section, key in (("data", "mixture"), ("ensemble", "backbones")):
        tree[section][key] = {str(at): part for at, part in enumerate(tree[section][key], 1)}
    for network in (tree["model"], *tree["ensemble"]["backbones"].values()):
        if network["weights"] not in ("hub", "none"):
            network["weights"] = Path(network["weights"]).name
    return dict(_flatten(tree, ""))


def _flatten(tree: Mapping[str, Any], prefix: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def environment() -> str:
    """Versions behind a run: interpreter, platform and packages; no host, user or path."""
    lines = [f"python {platform.python_version()}", f"{platform.system()} {platform.machine()}"]
    lines += [f"cpu_count {os.cpu_count()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} absent")
    return "\n".join(lines) + "\n"

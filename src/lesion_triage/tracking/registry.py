"""MLflow's model registry: versions of sealed bundles, and the aliases that point at them.

Imports the bundle and the exception tree. Unlike tracking, it is used on explicit request: a failure is an
error.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lesion_triage import __version__
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.errors import LesionTriageError, RegistryError, first_line, without_password
from lesion_triage.tracking.quiet import quiet
from lesion_triage.tracking.tracker import experiment_id

MODEL_CODE = Path(__file__).with_name("served.py")
RECORD = "record"
"""Folder in a version, beside the bundle, with what was known when it was registered."""

_BUNDLE = "artifacts/bundle"
_BUNDLE_SHA256 = "bundle_sha256"


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: str
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    @property
    def bundle_sha256(self) -> str:
        """Hash of the bundle inside; empty: it was not registered by this program."""
        return self.tags.get(_BUNDLE_SHA256, "")


class Registry:
    """The registry behind one tracking URI."""

    def __init__(self, uri: str, artifacts: str | None = None) -> None:
        """Prepare.

        Args:
            uri: of the tracking server, or of a database.
            artifacts: where a new experiment's files go; None: the server's default.
        """
        self._uri, self._artifacts = uri, artifacts
        with self._registry_errors():
            from mlflow.tracking import MlflowClient  # noqa: PLC0415 - seconds to import

            self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def find_by_alias(self, name: str, alias: str) -> Version | None:
        """The version that an alias points at, or None."""
        with self._registry_errors():
            if self._is_missing(name):
                return None
            aliases = self._client.get_registered_model(name).aliases
            return self._version(name, aliases[alias]) if alias in aliases else None

    def find_by_bundle(self, name: str, bundle_sha256: str) -> Version | None:
        """The newest version that holds this bundle, or None."""
        with self._registry_errors():
            found = self._client.search_model_versions(f"name = '{name}'")
            held = [one for one in found if one.tags.get(_BUNDLE_SHA256) == bundle_sha256]
            newest = max(held, key=lambda one: int(one.version), default=None)
            return None if newest is None else self._version(name, newest.version)

    def register(
        self, name: str, bundle: Bundle, record: Mapping[str, bytes], experiment: str, run_id: str | None
    ) -> Version:
        """Create a version that ``mlflow.pyfunc.load_model`` loads and ``mlflow models serve`` serves.

        Args:
            name: of the registered model, created if missing.
            bundle: sealed.
            record: files to keep beside it, by name.
            experiment: in which the model is shown.
            run_id: of the MLflow run that made the bundle; None: not known here.
        """
        tags = {
            _BUNDLE_SHA256: bundle.sha256,
            "certificate_id": bundle.certificate.certificate_id(),
            "synthetic": str(bundle.header.synthetic).lower(),
        }
        with self._registry_errors(), tempfile.TemporaryDirectory() as scratch:
            packed = pack(bundle, Path(scratch), record)
            shown = experiment_id(self._client, experiment, self._artifacts)
            run_id = run_id if run_id and self._has_run(run_id) else None
            logged = self._client.create_logged_model(shown, "bundle", run_id, tags, model_type="bundle")
            self._client.log_model_artifacts(logged.model_id, str(packed))
            self._client.finalize_logged_model(logged.model_id, "READY")
            if self._is_missing(name):
                self._client.create_registered_model(name)
            with _global_tracking_uri(self._uri):
                made = self._client.create_model_version(
                    name, logged.artifact_location, run_id, tags, model_id=logged.model_id
                )
            return self._version(name, made.version)

    def set_alias(self, version: Version, alias: str, tags: Mapping[str, str], description: str) -> None:
        """Write the reason on a version first, and only then let the alias point at it."""
        with self._registry_errors():
            for key, value in tags.items():
                self._client.set_model_version_tag(version.name, version.number, key, value)
            self._client.update_model_version(version.name, version.number, description)
            self._client.set_registered_model_alias(version.name, alias, version.number)

    @contextmanager
    def downloaded(self, version: Version) -> Iterator[Path]:
        """A temporary folder with ``bundle/`` and ``record/`` of a version.

        Raises:
            BundleError: what was downloaded is not a complete bundle.
            RegistryError: it is not the bundle that the registry names.
        """
        with tempfile.TemporaryDirectory() as scratch:
            with self._registry_errors():
                from mlflow.artifacts import download_artifacts  # noqa: PLC0415

                source = self._client.get_model_version_download_uri(version.name, version.number)
                root = Path(download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=self._uri))
            folder = Path(scratch) / "version"
            folder.mkdir()
            if not (root / _BUNDLE).is_dir():
                raise RegistryError(
                    f"{version.name} version {version.number}: holds no bundle; it was not registered by "
                    "promote."
                )
            (root / _BUNDLE).rename(folder / "bundle")
            if (root / RECORD).is_dir():
                (root / RECORD).rename(folder / RECORD)
            found = open_bundle(folder / "bundle").sha256
            if found != version.bundle_sha256:
                raise RegistryError(
                    f"{version.name} version {version.number}: expected the bundle "
                    f"{version.bundle_sha256[:16]}…, found {found[:16]}…; it was changed in the registry."
                )
            yield folder

    def _version(self, name: str, number: str) -> Version:
        found = self._client.get_model_version(name, number)
        return Version(name, str(found.version), dict(found.tags), found.description or "")

    def _has_run(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            self._client.get_run(run_id)
        except MlflowException:
            return False
        return True

    def _is_missing(self, name: str) -> bool:
        return not self._client.search_registered_models(f"name = '{name}'", max_results=1)

    @contextmanager
    def _registry_errors(self) -> Iterator[None]:
        try:
            with quiet():
                yield
        except (LesionTriageError, ModuleNotFoundError):
            raise
        except Exception as error:  # whatever MLflow, a database or a network may raise
            said = without_password(first_line(error)[:300])
            raise RegistryError(
                f"the model registry at {without_password(self._uri)} refused the request "
                f"({type(error).__name__}: {said}); check that it is running and that you may write to it."
            ) from None


def pack(bundle: Bundle, folder: Path, record: Mapping[str, bytes]) -> Path:
    """Write a bundle as an MLflow model below ``folder``: code as a file, no pickles, no local paths.

    Args:
        bundle: sealed.
        folder: exists and is empty.
        record: files to keep beside the bundle, by name.
    """
    with quiet():
        from mlflow.models import ModelSignature  # noqa: PLC0415
        from mlflow.pyfunc import save_model  # noqa: PLC0415
        from mlflow.types import ColSpec, DataType, Schema  # noqa: PLC0415
        from mlflow.types.schema import AnyType, Array  # noqa: PLC0415

        # ``Any``: MLflow breaks bytes in a list of strings, refuses an integer for an age, and refuses all
        # cases if one list cell is empty. The model itself checks what a cell may be.
        anything: Any = AnyType
        asked = Schema([ColSpec(anything(), name, required=False) for name in ("images", "history")])
        texts, numbers, lists = DataType.string, DataType.double, Array(DataType.string)
        answered: dict[str, Any] = {
            "disposition": texts,
            "priority_band": DataType.long,
            "score": numbers,
            "threshold": numbers,
            "reasons": lists,
            "red_flags": lists,
            "error_code": texts,
            "notice": texts,
            "synthetic": DataType.boolean,
            "bundle_name": texts,
            "bundle_sha256": texts,
            "certificate_id": texts,
        }
        optional = ("priority_band", "score", "threshold", "error_code")
        columns: list[Any] = [
            ColSpec(kind, name, required=name not in optional) for name, kind in answered.items()
        ]
        staged, packed = folder / "bundle", folder / "model"
        shutil.copytree(bundle.folder, staged)
        save_model(
            packed,
            python_model=str(MODEL_CODE),
            artifacts={"bundle": str(staged)},
            signature=ModelSignature(asked, Schema(columns)),
            pip_requirements=[f"lesion-triage[serve]=={__version__}", "mlflow", "pandas"],
            metadata={"bundle_sha256": bundle.sha256, "certificate_id": bundle.certificate.certificate_id()},
        )
    _remove_local_paths(packed / "MLmodel")
    for name, content in record.items():
        place = packed / RECORD / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return packed


@contextmanager
def _global_tracking_uri(uri: str) -> Iterator[None]:
    """MLflow's store uses the process-wide URI, and would otherwise create a database of its own."""
    import mlflow  # noqa: PLC0415

    set_uri: Any = mlflow.set_tracking_uri
    before = os.environ.get("MLFLOW_TRACKING_URI")
    set_uri(uri)
    try:
        yield
    finally:
        set_uri(before)


def _remove_local_paths(description: Path) -> None:
    """Remove the paths of bundle and code at packing time, which MLflow records."""
    tree = yaml.safe_load(description.read_text(encoding="utf-8"))
    flavour = tree["flavors"]["python_function"]
    flavour["artifacts"]["bundle"]["uri"] = "bundle"
    flavour["model_code_path"] = MODEL_CODE.name
    description.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")

"""A bundle with its evidence: what a record of change compares and what is promoted.

Imports the dossier, the bundle and the tracker's flat configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.store import HEADER_FILE as BUNDLE_HEADER
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.cards.dossier import AUDIT, AUDIT_MODEL, CONFIG, MANIFEST, RESULTS, Dossier
from lesion_triage.cards.forms import Audit, Results, checked
from lesion_triage.config_file import validated
from lesion_triage.errors import RunError
from lesion_triage.tracking import flat_params

FLAT_CONFIG, DATA = "config.json", "data.json"
"""Files of the record that is passed on with a bundle: the configuration without locations, and the
manifest's counts without names."""

_RESULTS = (
    "schema_version",
    "split",
    "unit",
    "bundle_sha256",
    "certificate_id",
    "model_sha256",
    "manifest_sha256",
    "splits_sha256",
    "cases",
    "positives",
    "missed",
    "abstained",
    "slices",
    "parity",
)
_AUDITED = ("format", "verdict", "facts", "findings")
_COUNTS = ("source", "synthetic", "sha256", "records", "counts")


@dataclass(frozen=True)
class BundleEvidence:
    """One bundle and its evidence."""

    bundle: Bundle
    dossier: Dossier
    """Of the run that made it, or of the record kept of that run."""
    config: Mapping[str, Any] | None
    """Flat; None: not known."""
    data: Mapping[str, Any] | None
    """Source and counts of the dataset; None: not known."""

    def results_of_run(self) -> dict[str, Any] | None:
        """Results of the run, which may be those of another bundle; None: there are none.

        Raises:
            RunError: they are damaged. The same for ``results`` and ``audit``.
        """
        return checked(self.dossier, RESULTS, Results)

    def results(self) -> dict[str, Any] | None:
        """Results of exactly this bundle; None: there are none."""
        found = self.results_of_run()
        return found if found and found.get("bundle_sha256") == self.bundle.sha256 else None

    def audit(self) -> dict[str, Any] | None:
        """The audit of this graph and its data, else that of the data alone; None: there is none."""
        certificate = self.bundle.certificate
        for file in (AUDIT_MODEL, AUDIT):
            found = checked(self.dossier, file, Audit)
            if found is None:
                continue
            facts = found.get("facts", {})
            of_the_data = certificate.manifest_sha256 in (None, facts.get("manifest_sha256"))
            of_the_model = facts.get("model_sha256") in (None, certificate.model_sha256)
            if of_the_data and of_the_model:
                return found
        return None

    def purpose(self) -> str:
        """The text on intended use in its model card."""
        _, _, after = self.bundle.model_card.partition("## What it is for\n")
        return after.partition("\n## How it was made")[0].strip()

    def record(self) -> dict[str, bytes]:
        """Files that may be passed on with the bundle: what a comparison reads, and no name of a picture."""
        files = {}
        for file, kept in ((RESULTS, _RESULTS), (AUDIT, _AUDITED), (AUDIT_MODEL, _AUDITED)):
            found = self.dossier.get(file)
            if isinstance(found, dict):
                files[file] = canonical_json({name: found[name] for name in kept if name in found}).encode()
        for file, content in ((FLAT_CONFIG, self.config), (DATA, self.data)):
            if content is not None:
                files[file] = canonical_json(dict(content)).encode()
        return files


def open_evidence(path: Path, run: Path | None = None) -> BundleEvidence:
    """Open a run, a bundle in a run, or a bundle on its own.

    Args:
        path: folder of a run or of a bundle.
        run: the run that made the graph of a bundle on its own, such as a recertified one; None: unknown.

    Raises:
        RunError: the folder is neither of a run nor of a bundle.
        ConfigError: the run's configuration was altered, or is of another version.
        BundleError: the bundle is incomplete or altered.
    """
    if (path / CONFIG).is_file() and not (path / BUNDLE_HEADER).is_file():
        if not (path / "bundle").is_dir():
            raise RunError(f"{path}: no bundle; `lesion-triage export` seals one.")
        return _of_run(path, path / "bundle")
    if not path.is_dir():
        raise RunError(f"{path}: no such folder, expected that of a run or of a bundle.")
    parent = path.resolve().parent
    if run is None and path.resolve().name == "bundle" and (parent / CONFIG).is_file():
        run = parent
    if run is not None:
        return _of_run(run, path)
    return BundleEvidence(open_bundle(path), Dossier(path / "nothing", path), None, None)


def open_record(folder: Path) -> BundleEvidence:
    """Open ``bundle/`` and ``record/`` as fetched from the registry."""
    dossier = Dossier(folder / "record", folder / "bundle")
    config, data = dossier.get(FLAT_CONFIG), dossier.get(DATA)
    return BundleEvidence(open_bundle(folder / "bundle"), dossier, config, data)


def _of_run(run: Path, bundle: Path) -> BundleEvidence:
    if not (run / CONFIG).is_file():
        raise RunError(f"{run}: no {CONFIG}, expected the folder of a run.")
    dossier = Dossier(run, bundle)
    config = flat_params(validated(dossier.get(CONFIG, default={}), str(run / CONFIG)))
    manifest = dossier.get(MANIFEST)
    data = {name: manifest[name] for name in _COUNTS if name in manifest} if manifest else None
    return BundleEvidence(open_bundle(bundle), dossier, json.loads(json.dumps(config)), data)

"""The files of a finished run, and pointers into them. Imports the bundle's store, the errors and PyYAML.

A pointer names a file and a place in it. What is missing is unknown, never zero. A file that exists and is
damaged is an error: a card must not say that a run was not audited because its audit cannot be read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.store import open_bundle
from lesion_triage.errors import RunError

CONFIG, MANIFEST, TABLE, SPLITS = "config.yaml", "manifest.json", "manifest.csv", "splits.json"
CERTIFICATE, POLICY, HEADER = "bundle/certificate.json", "bundle/policy.json", "bundle/bundle.json"
CARD = "bundle/MODEL_CARD.md"
AUDIT, AUDIT_MODEL = "audit/audit.json", "audit_with_model/audit.json"
RESULTS, CASE_SCORES = "report/results.json", "report/case_scores.csv"
CURVE, OPENINGS = "learning_curve.json", "test_openings.jsonl"

_BUNDLE = "bundle/"
_STEP = re.compile(r"([^.\[\]]+)|\[([^\]=]+)(?:=([^\]]*))?\]")


class Unknown(LookupError):  # noqa: N818 - not an error: a blank
    """The run does not have this information."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A place in a file of the run's folder."""

    file: str
    """Relative to the run, with forward slashes."""
    place: str = ""
    """``a.b``, ``a[0]`` or ``a[name=all]`` in JSON and YAML; a column of a CSV; a heading of a Markdown file.
    Empty: the file as a whole."""

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.file}: {self.place}" if self.place else self.file


@dataclass(frozen=True)
class Dossier:
    """A run's folder, or another folder with files of the same names."""

    folder: Path
    bundle: Path | None = None
    """Folder of the bundle; None: ``bundle/`` in ``folder``."""
    _read: dict[str, Any] = field(default_factory=dict, repr=False)
    facts: dict[str, object] = field(default_factory=dict, repr=False)
    """Cache of what was computed from the files, by name."""

    def at(self, file: str, place: str = "") -> Any:
        """The value at a place.

        Raises:
            Unknown: the file is missing, has no such place, or has null there.
            RunError: the file exists and cannot be read.
        """
        if file not in self._read:
            self._read[file] = _parse(self.path(file))
        found = _walk(self._read[file], place)
        if found is None:
            raise Unknown(str(Pointer(file, place)))
        return found

    def get(self, file: str, place: str = "", default: Any = None) -> Any:
        """As ``at``, but ``default`` instead of Unknown."""
        try:
            return self.at(file, place)
        except Unknown:
            return default

    def path(self, file: str) -> Path:
        """Path of a file."""
        if self.bundle is not None and file.startswith(_BUNDLE):
            return self.bundle / file.removeprefix(_BUNDLE)
        return self.folder / file

    def bundle_sha256(self) -> str:
        """Hash of the bundle, by which results and openings of the test split name it."""
        return sha256_of(self.path(HEADER).read_bytes())

    def holds(self, pointer: Pointer) -> bool:
        """True if the pointer leads to something."""
        try:
            self.at(pointer.file, pointer.place)
        except Unknown:
            return False
        return True


def open_run(folder: Path) -> Dossier:
    """The dossier of a run that has a bundle.

    Raises:
        RunError: no run, a run without a bundle, or results or an audit of another bundle, manifest or model.
        BundleError: the bundle is incomplete or altered.
    """
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder}: no {CONFIG}, expected the folder of a run; `lesion-triage run` makes one.")
    if not (folder / HEADER).is_file():
        raise RunError(f"{folder}: no bundle; `lesion-triage export` seals one.")
    bundle, dossier = open_bundle(folder / _BUNDLE), Dossier(folder)
    for file, place, of, again in (
        (RESULTS, "bundle_sha256", bundle.sha256, "evaluate"),
        (AUDIT, "facts.manifest_sha256", bundle.certificate.manifest_sha256, "audit"),
        (AUDIT_MODEL, "facts.model_sha256", bundle.certificate.model_sha256, "audit"),
    ):
        found = dossier.get(file, place, of)
        if of is not None and found != of:  # a site's certificate names no manifest
            raise RunError(
                f"{folder / file}: made for {str(found)[:12]} ({place}), but the bundle beside it has "
                f"{str(of)[:12]}, and a card would mix both; run `lesion-triage {again}` again."
            )
    return dossier


def _parse(path: Path) -> Any:
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as stream:
                return {column: column for column in next(csv.reader(stream), ())}
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            return {line.lstrip("# "): line for line in text.splitlines() if line.startswith("#")}
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line]
        return yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise RunError(
            f"{path}: cannot be read ({why}); restore it, or run the stage that wrote it again."
        ) from None


def _walk(tree: Any, place: str) -> Any:
    if isinstance(tree, Mapping) and place in tree:  # a heading or a column may hold a full stop
        return tree[place]
    for name, key, value in _STEP.findall(place):
        if name:
            tree = tree.get(name) if isinstance(tree, Mapping) else None
        elif not isinstance(tree, Sequence) or isinstance(tree, str):
            tree = None
        elif value or not key.isdecimal():
            tree = next(
                (one for one in tree if isinstance(one, Mapping) and str(one.get(key)) == value), None
            )
        else:
            tree = tree[int(key)] if int(key) < len(tree) else None
        if tree is None:
            return None
    return tree

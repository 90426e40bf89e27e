"""Where an experiment is repeated: folders, pictures at hand, settings. Imports runs and this package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.config_file import DATA_ROOT_VARIABLE
from lesion_triage.console import echo
from lesion_triage.errors import ConfigError, RunError
from lesion_triage.reproduce.definition import Dataset, Experiment, Version, VersionName
from lesion_triage.reproduce.machine import machine_facts
from lesion_triage.reproduce.records import Record, StepResult
from lesion_triage.runs import Run, file_sha256
from lesion_triage.tracking import Tracker


@dataclass
class Workspace:
    """Everything that a step needs to know, and the results of the steps before it."""

    experiment: Path
    """Folder of the definition."""
    name: str
    version: Version
    version_name: VersionName
    runs: Path
    """Folder of all runs."""
    folder: Path
    """Folder of this reproduction; a repeated command finds finished work here."""
    data: Mapping[str, Path]
    """Datasets at hand."""
    record: Record
    tracker: Tracker
    settings: tuple[str, ...] = ()
    """Overrides for every configuration."""
    weights: Path | None = None
    """Replaces the model hub: a file, or a folder with one file for each backbone."""
    other_data: bool = False
    """Continue even if pictures or splits are not those of the record."""
    recording: bool = False
    tracked: bool = True
    finished_runs: dict[str, Run] = field(default_factory=dict)
    """Runs by the name of their documents."""
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Hashes of the pictures behind each run."""
    obstacles: dict[str, str] = field(default_factory=dict)
    """Document, or ``document.part`` -> why its cells cannot be compared."""

    def resolve(self, relative: str) -> Path:
        """Path of a file that the definition names."""
        return (self.experiment / relative).resolve()

    def cached_document(
        self, name: str, inputs: Mapping[str, Any], make_document: Callable[[Path], bytes]
    ) -> bytes:
        """The document of a step, from an earlier attempt on the same machine and inputs, or made now.

        Args:
            name: of the document.
            inputs: everything that decides it, except for processor, threads and versions of packages.
            make_document: makes it, in a folder of its own.
        """
        document_path, hash_path = (
            self.folder / "documents" / f"{name}.json",
            self.folder / "documents" / f"{name}.sha256",
        )
        document_path.parent.mkdir(parents=True, exist_ok=True)
        # Else a document of an earlier version, or of another machine, would be compared as if made here.
        inputs_sha256 = sha256_of(canonical_json({**inputs, "machine": machine_facts()}).encode())
        if document_path.is_file() and hash_path.is_file():
            content = document_path.read_bytes()
            if hash_path.read_text(encoding="utf-8").split() == [inputs_sha256, sha256_of(content)]:
                echo(f"{name}: unchanged")
                return content
        echo(name)
        folder = self.folder / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        content = make_document(folder)
        write_atomically(document_path, content)
        write_atomically(hash_path, f"{inputs_sha256} {sha256_of(content)}\n".encode())
        return content

    def check_inputs(self, document: str, hashes: Mapping[str, str]) -> None:
        """Compare the pictures behind a document with those of the record, before hours are spent.

        Raises:
            RunError: they differ, and ``--other-data`` was not given.
        """
        recorded = self.record.made_from.get(document, {})
        differing = [what for what, digest in hashes.items() if recorded.get(what, digest) != digest]
        if not differing:
            return
        first = differing[0]
        why = f"other pictures or splits: {first} {hashes[first][:12]}, in the record {recorded[first][:12]}"
        if not (self.other_data or self.recording):
            raise RunError(
                f"{document}: {why}; take the data that {self.experiment} names, or give --other-data to "
                "run it anyway, with nothing to compare."
            )
        self.obstacles[document] = why

    def check_documents(self, results: Mapping[str, StepResult]) -> None:
        """Compare what the documents state about their pictures, where that was not checked before."""
        for name, one in results.items():
            if name not in self.obstacles and name in self.record.documents:
                recorded = self.record.made_from.get(name, {})
                for what, digest in one.made_from.items():
                    if recorded.get(what, digest) != digest:
                        self.obstacles[name] = (
                            f"other inputs: {what} {digest[:12]}, not {recorded[what][:12]}"
                        )


def find_datasets(definition: Experiment, version: Version, roots: Sequence[str]) -> dict[str, Path]:
    """Folders of the datasets that a version uses, as far as they exist.

    Args:
        definition: names and describes them.
        version: says which are needed.
        roots: ``DIR``, which contains a folder for each dataset, or is the dataset if only one is needed; or
            ``NAME=DIR``.

    Raises:
        ConfigError: ``NAME=DIR`` with a name that the experiment does not have, or no such folder.
    """
    used = [one for one in definition.data if one.name in version.data()]
    required = [one for one in used if not one.optional]
    found: dict[str, Path] = {}
    for root in roots or ([os.environ[DATA_ROOT_VARIABLE]] if os.environ.get(DATA_ROOT_VARIABLE) else []):
        name, equals, folder = root.partition("=")
        known = [one.name for one in definition.data]
        named = bool(equals) and name in known  # otherwise the equals sign is part of the path
        path = Path(folder if named else root)
        if not path.is_dir():
            if equals and not named:
                raise ConfigError(
                    f"--data-root {root}: no such folder, and this experiment has no dataset '{name}'; "
                    f"known: {', '.join(known) or 'none'}."
                )
            raise ConfigError(f"--data-root {root}: no such folder.")
        if named:
            found[name] = path
            continue
        subfolders = {one.name: path / (one.folder or one.name) for one in used}
        found |= {name: folder for name, folder in subfolders.items() if folder.is_dir()}
        if len(required) == 1 and required[0].name not in found:
            found[required[0].name] = path
    return {name: path for name, path in found.items() if name in version.data()}


def missing_datasets(definition: Experiment, version: Version, data: Mapping[str, Path]) -> list[Dataset]:
    """Datasets that a version requires and that are not at hand."""
    return [
        one
        for one in definition.data
        if one.name in version.data() and not one.optional and one.name not in data
    ]


def pictures_sha256(folder: Path) -> str:
    """Hash of the contents of all files below a folder, independent of their names and times."""
    digests = sorted(file_sha256(path) for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()

"""The record of an experiment: documents beside its definition, and what they were made on.

Imports bundle, config, this package's definition and cells.

The documents are the record: a cell's value is read from them and stored nowhere else. ``recorded.json`` says
which machine and which pictures a document came from, and is valid as long as the document has its hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lesion_triage.bundle.document import canonical_json, first_problem, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Section
from lesion_triage.errors import ConfigError, DataError
from lesion_triage.reproduce.cells import Cells, cells_of
from lesion_triage.reproduce.definition import Experiment, Train, Version, VersionName

RECORD_FILE = "recorded.json"


class _Origin(Section):
    """Origin of a document; fields as in ``StepResult``."""

    sha256: str
    made_from: dict[str, str]
    facts: dict[str, str]


class _Origins(Section):
    """The content of ``recorded.json``; fields as in ``Record``."""

    format: Literal[1] = 1
    recorded_on: str = ""
    machine: dict[str, str] = Field(default_factory=dict)
    settings: tuple[str, ...] = ()
    documents: dict[str, _Origin] = Field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """Result of one step."""

    document: dict[str, Any]
    content: bytes
    """The document as written."""
    made_from: Mapping[str, str] = field(default_factory=dict)
    """Hashes of its origins: manifest, splits, recipe."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Hashes of results, such as a bundle's content: compared like cells."""


@dataclass(frozen=True)
class Record:
    """The record of one version of an experiment."""

    documents: Mapping[str, Any]
    made_from: Mapping[str, Mapping[str, str]]
    facts: Cells
    machine: Mapping[str, str]
    """Empty: unknown."""
    recorded_on: str
    """Date, UTC; empty: unknown."""
    settings: tuple[str, ...]
    """Overrides given in addition to the definition's."""

    def cells(self, version: Version) -> Cells:
        """Every recorded cell.

        Raises:
            DataError: a document lacks what its kind requires.
        """
        return {**cells_of(self.documents, seeds_of(version)), **self.facts}


def seeds_of(version: Version) -> tuple[str, ...]:
    """Documents that differ only in the seed, if one step has several."""
    steps = [step for step in version.steps if isinstance(step, Train) and len(step.seeds) > 1 and step.keep]
    return steps[0].documents() if len(steps) == 1 and steps[0].until == "evaluate" else ()


def folder_of(experiment: Path, version: VersionName) -> Path:
    """Folder of a version's documents; those of the full version are beside the definition."""
    return experiment if version == "full" else experiment / version


def read(experiment: Path, definition: Experiment, name: VersionName) -> Record:
    """Read the record of a version; a document that is absent has not been recorded.

    Raises:
        DataError: a file that is not JSON, or a description that lacks a part.
    """
    folder, version = folder_of(experiment, name), definition.versions()[name]
    contents = {
        document: (folder / f"{document}.json").read_bytes()
        for document in version.documents()
        if (folder / f"{document}.json").is_file()
    }
    documents = {
        document: _parse_json(folder / f"{document}.json", raw) for document, raw in contents.items()
    }
    origins = _read_origins(folder / RECORD_FILE)
    valid_origins = {
        document: origins.documents[document]
        for document, raw in contents.items()
        if document in origins.documents and origins.documents[document].sha256 == sha256_of(raw)
    }
    complete = bool(documents) and valid_origins.keys() == documents.keys()
    return Record(
        documents=documents,
        made_from={
            document: _hashes(document_content, valid_origins.get(document))
            for document, document_content in documents.items()
        },
        facts={
            f"{document}.{name}": value
            for document, one in valid_origins.items()
            for name, value in one.facts.items()
        },
        machine=origins.machine if complete else {},
        recorded_on=origins.recorded_on if complete else "",
        settings=origins.settings if complete else (),
    )


def write(
    experiment: Path,
    name: VersionName,
    results: Mapping[str, StepResult],
    machine: Mapping[str, str],
    recorded_on: str,
    settings: tuple[str, ...],
) -> list[Path]:
    """Replace the record by what was found; the description is written last.

    Raises:
        ConfigError: the experiment's folder cannot be written to.
    """
    folder = folder_of(experiment, name)
    origins = _Origins(
        recorded_on=recorded_on,
        machine=dict(machine),
        settings=settings,
        documents={
            document: _Origin(
                sha256=sha256_of(one.content), made_from=dict(one.made_from), facts=dict(one.facts)
            )
            for document, one in results.items()
        },
    )
    written = []
    try:
        folder.mkdir(exist_ok=True)
        for document, one in results.items():
            written.append(folder / f"{document}.json")
            write_atomically(written[-1], one.content)
        written.append(folder / RECORD_FILE)
        write_atomically(written[-1], canonical_json(origins.model_dump(mode="json")).encode())
    except OSError as error:
        raise ConfigError(f"{folder}: the record cannot be written ({error}).") from None
    return written


def _hashes(document: Mapping[str, Any], origin: _Origin | None) -> dict[str, str]:
    """Hashes of a document's origins: as recorded beside it, else as stated in the document."""
    own = {
        key: document[key]
        for key in ("manifest_sha256", "splits_sha256", "scores_sha256")
        if isinstance(document.get(key), str)
    }
    return {**own, **(origin.made_from if origin else {})}


def _read_origins(path: Path) -> _Origins:
    """Origin of each document; empty without a description."""
    if not path.is_file():
        return _Origins()
    try:
        return _Origins.model_validate(_parse_json(path, path.read_bytes()))
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error)}; record it again.") from None


def _parse_json(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise DataError(f"{path}: no JSON document ({error}); record it again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object; record it again.")
    return content

"""The predictions table: one row per photograph, the interface between the network and the statistics.

Imports bundle and the exception tree, so that calibration needs no torch, no GPU and no picture.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.novelty_gate import is_out_of_distribution
from lesion_triage.bundle.schema import ReasonCode
from lesion_triage.errors import PredictionsError

FORMAT = 3
_HEADER_KEYS = {"split", "rows", "sha256", "manifest_sha256", "splits_sha256", "model_sha256"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The exported model's output for one photograph, and what is known of the photograph."""

    image_id: str
    case_id: str
    """Of the lesion, which is what the server is asked about."""
    unit_id: str
    """Of what is drawn independently of the others: the patient where known, else the lesion."""
    file_fingerprint: str
    pixel_fingerprint: str
    """``bundle.fingerprints`` of the file and of the prepared pixels."""
    logit: float | None
    """From the graph; None if a gate refused the photograph."""
    quality_codes: str
    """Reason codes of the gate that refused it, separated by spaces; empty if gradable."""
    novelty: float | None
    """From the graph; None if the photograph never reached it."""
    needs_in_person: bool | None
    diagnosis: str
    diagnosis_confirm_type: str
    source: str
    sex: str
    age_approx: float | None
    anatom_site_general: str
    fitzpatrick_skin_type: str
    history: str = ""
    """JSON of what is known beyond sex, age, site and skin type above; empty: nothing."""


@dataclass(frozen=True)
class Predictions:
    """The rows of one split, and the hashes of what they were computed from."""

    split: str
    manifest_sha256: str
    splits_sha256: str
    model_sha256: str
    rows: tuple[Prediction, ...]

    def by_case(self) -> dict[str, list[Prediction]]:
        """Rows grouped by case, in order of first appearance."""
        cases: dict[str, list[Prediction]] = {}
        for row in self.rows:
            cases.setdefault(row.case_id, []).append(row)
        return cases

    def behind_gate(self, novelty_limit: float | None) -> Self:
        """The table as the policy sees it: a photograph that reaches ``novelty_limit`` has no logit.

        Args:
            novelty_limit: None leaves the table as it is.

        Raises:
            ScoringError: there is a limit, and a photograph has a logit but no novelty.
        """
        return replace(self, rows=tuple(_behind_gate(row, novelty_limit) for row in self.rows))

    def fingerprints(self) -> frozenset[str]:
        """Fingerprints of all photographs, both of files and of pixels."""
        return frozenset(f for row in self.rows for f in (row.file_fingerprint, row.pixel_fingerprint))

    def write(self, folder: Path) -> str:
        """Write ``<split>.csv`` and then ``<split>.json``; returns the table's SHA-256.

        Raises:
            PredictionsError: a logit or a novelty is not finite. ``nan >= threshold`` is False and would
                read as "below".
        """
        table = _to_csv(self.rows).encode()
        digest = sha256_of(table)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.split}.csv", table)
        header = {
            "split": self.split,
            "rows": len(self.rows),
            "sha256": digest,
            "manifest_sha256": self.manifest_sha256,
            "splits_sha256": self.splits_sha256,
            "model_sha256": self.model_sha256,
        }
        write_atomically(folder / f"{self.split}.json", canonical_json(header).encode())
        return digest


def read(folder: Path, split: str) -> tuple[Predictions, str]:
    """Read a table back and check it; returns it with its SHA-256.

    Raises:
        PredictionsError: the table is missing, was altered since it was written, has other columns, or has an
            unreadable cell.
    """
    path = folder / f"{split}.csv"
    try:
        header = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
        table = path.read_bytes()
    except (OSError, ValueError) as error:
        raise PredictionsError(f"{path}: no complete predictions table ({error}).") from None
    if not isinstance(header, dict) or set(header) != _HEADER_KEYS:
        raise PredictionsError(f"{folder / split}.json: not the header of a predictions table.")
    if sha256_of(table) != header["sha256"]:
        raise PredictionsError(f"{path}: altered since it was written; predict again.")
    rows = tuple(_parse(table.decode(), path))
    hashes = {key: str(header[key]) for key in ("manifest_sha256", "splits_sha256", "model_sha256")}
    return Predictions(split=split, rows=rows, **hashes), str(header["sha256"])


def _behind_gate(row: Prediction, limit: float | None) -> Prediction:
    if row.logit is None or not is_out_of_distribution(row.novelty, limit):
        return row
    return replace(row, logit=None, quality_codes=ReasonCode.out_of_distribution.value)


def _to_csv(rows: Iterable[Prediction]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.name for field in fields(Prediction)])
    for number, row in enumerate(rows, start=1):
        for name, value in (("logit", row.logit), ("novelty", row.novelty)):
            if value is not None and not math.isfinite(value):
                raise PredictionsError(
                    f"picture {number} of the split: the {name} is {value}; the model is broken, nothing was "
                    "written."
                )
        writer.writerow(["" if value is None else value for value in asdict(row).values()])
    return buffer.getvalue()


def _parse(table: str, path: Path) -> Iterator[Prediction]:
    reader = csv.DictReader(io.StringIO(table))
    names = [field.name for field in fields(Prediction)]
    if reader.fieldnames != names:
        raise PredictionsError(f"{path}: expected the columns {', '.join(names)}.")
    truth = {"True": True, "False": False, "": None}
    for number, row in enumerate(reader, start=2):
        column = "needs_in_person"
        try:
            needs = truth[row[column]]
            numbers = {}
            for column in ("logit", "novelty", "age_approx"):
                numbers[column] = float(row[column]) if row[column] else None
        except (KeyError, ValueError):
            raise PredictionsError(f"{path}, line {number}: unreadable {column}; predict again.") from None
        logit, novelty = numbers["logit"], numbers["novelty"]
        for name, value in (("logit", logit), ("novelty", novelty)):
            if value is not None and not math.isfinite(value):
                raise PredictionsError(
                    f"{path}, line {number}: the {name} is {value}, expected a finite number."
                )
        values = {**row, **numbers, "needs_in_person": needs}
        yield Prediction(**values)  # type: ignore[arg-type]

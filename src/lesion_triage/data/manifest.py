"""The manifest: every usable picture of a dataset, its hash and its label, in one checked table.

Imports config, the bundle's schema and files, picture files, and the readers in ``data.sources``.

Three files: ``manifest.csv`` has one row for each picture, ordered by image id; ``duplicates.csv`` has the
pairs that were found to be copies; ``manifest.json`` is their header and is written last, so its existence
means the tables are complete. Equal data gives equal bytes.
"""

from __future__ import annotations

import csv
import io
import json
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Data, Roots
from lesion_triage.console import ProgressCallback
from lesion_triage.data import consistency, duplicates, ingest, picture_files, sources
from lesion_triage.data.perceptual_hash import Descriptors
from lesion_triage.data.records import COLUMNS, SYNTHETIC, Record, place_of
from lesion_triage.errors import DataError, ManifestError

TABLE = "manifest.csv"
PAIRS = "duplicates.csv"
HEADER = "manifest.json"
FORMAT = 2
"""Raised when a column is added or changes its meaning."""

_CELLS = operator.attrgetter(*COLUMNS)
_TRUTH = {"True": True, "False": False, "": None}
_READ_CELL: Mapping[str, Callable[[str], object]] = {
    "needs_in_person": _TRUTH.__getitem__,
    "age_approx": lambda cell: float(cell) if cell else None,
    "width_px": int,
    "height_px": int,
}


class DuplicatePair(NamedTuple):
    """One line of ``duplicates.csv``: two pictures found to be copies."""

    image_id: str
    other_image_id: str
    kind: str
    """``file``, ``pixels`` or ``near``."""
    correlation: float
    """Of their descriptors, at most 1; four decimals."""
    orientation: int
    """EXIF orientation that turns the first into the other; 1: none."""


@dataclass(frozen=True)
class Manifest:
    """The usable pictures of one dataset, and an account of those that are not usable."""

    records: tuple[Record, ...]
    """In order of image id."""
    source: str
    """``data.source`` of the configuration it was built from; for a mixture, the names of its parts."""
    synthetic: bool
    """True if any picture was drawn by a program; nothing made from it is for use on people."""
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason -> names of the pictures that are in the dataset's table but not here."""
    citation: tuple[str, ...] = ()
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Remark -> names of the pictures or lesions concerned; they were kept."""
    copies: tuple[DuplicatePair, ...] = ()
    """Enough pairs to connect every duplicate group."""

    def write(self, folder: Path) -> str:
        """Write tables and header; returns the table's SHA-256, by which later files name it."""
        table = _csv_text(COLUMNS, map(_CELLS, self.records)).encode()
        pairs = _csv_text(DuplicatePair._fields, self.copies).encode()
        digest = sha256_of(table)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TABLE, table)
        write_atomically(folder / PAIRS, pairs)
        write_atomically(folder / HEADER, canonical_json(self._header(digest, sha256_of(pairs))).encode())
        return digest

    def _header(self, digest: str, pairs_digest: str) -> dict[str, object]:
        return {
            "format": FORMAT,
            "source": self.source,
            "synthetic": self.synthetic,
            "sha256": digest,
            "duplicates_sha256": pairs_digest,
            "records": len(self.records),
            "counts": {
                "lesions": len({record.lesion_id for record in self.records}),
                "patients": len({record.patient_id for record in self.records if record.patient_id}),
                "units": len({record.unit_id for record in self.records}),
                "duplicate_groups": len({r.duplicate_group for r in self.records if r.duplicate_group}),
                "duplicate_pictures": sum(bool(record.duplicate_group) for record in self.records),
                "needs_in_person": _counts(record.needs_in_person for record in self.records),
                "diagnosis": _counts(record.diagnosis for record in self.records),
                "source": _counts(record.source for record in self.records),
            },
            "dropped": {reason: list(names) for reason, names in self.dropped.items()},
            "findings": {remark: list(names) for remark, names in self.findings.items()},
            "citation": list(self.citation),
        }


def build(
    config: Data,
    root: Roots,
    progress: ProgressCallback | None = None,
    pixels: PixelSpec = PixelSpec(size_px=160),  # noqa: B008 - frozen
) -> Manifest:
    """Read a dataset's table and every picture it names.

    A picture that is missing or unusable is dropped and accounted for in ``dropped``. If pictures of one
    lesion disagree on ``needs_in_person``, the whole lesion becomes True, even if the picture that says so is
    dropped: a case goes up, never down.

    Args:
        config: names the source and what its reader needs.
        root: folder of the dataset. For a mixture: the folder of each part, or one that holds them by name.
            For ``source: synthetic``: the folder to draw into.
        progress: called with the number of pictures done and the total, from the calling thread.
        pixels: a picture beyond its limits is dropped; its side does not matter here.

    Raises:
        DataError: the dataset's own table cannot be read.
        ManifestError: more than a tenth of the pictures cannot be used, an image id occurs twice, a lesion
            belongs to two patients, or no picture is left.
    """
    root = sources.folders(config, root)
    listing = sources.read(root, config, progress)
    listed = [*listing.records, *chain.from_iterable(listing.refused.values())]
    consistency.refuse_ambiguous(listed)
    records, descriptors, unusable = ingest.read_pictures(root, listing.records, pixels, progress)
    dropped = ingest.add_unread(unusable, listing)
    ingest.refuse_wrong_folder(root, listed, len(records), dropped)
    dropped = {**listing.dropped, **dropped}
    positive_lesions = {record.lesion_id for record in listed if record.needs_in_person}
    settled, copies, findings = resolve_duplicates(records, descriptors, positive_lesions)
    return Manifest(
        records=settled,
        source=" + ".join(config.folders),
        synthetic=_any_synthetic(settled),
        dropped={reason: tuple(sorted(names)) for reason, names in dropped.items()},
        citation=listing.citation,
        findings={**listing.findings, **findings},
        copies=copies,
    )


def resolve_duplicates(
    records: Sequence[Record], descriptors: Descriptors, positive_lesions: Collection[str] = ()
) -> tuple[tuple[Record, ...], tuple[DuplicatePair, ...], dict[str, tuple[str, ...]]]:
    """Sort records, find copies among them, resolve their labels and join their units.

    Opens no file.

    Args:
        records: in any order.
        descriptors: in the same order.
        positive_lesions: lesions that need an in-person visit by a picture that may not be among the records.

    Returns:
        The records ordered by image id, the pairs of copies, and the findings.
    """
    order = sorted(range(len(records)), key=lambda place: records[place].image_id)
    ordered = [records[place] for place in order]
    found = duplicates.find_duplicates(
        [record.sha256 for record in ordered], descriptors.take(np.array(order, dtype=np.intp))
    )
    repeated = consistency.identical_files(ordered)
    settled, raised = consistency.reconcile_labels(ordered, found, positive_lesions)
    joined, remarks = consistency.join_duplicates(settled, found)
    copies = (
        DuplicatePair(
            ordered[pair.one].image_id,
            ordered[pair.other].image_id,
            pair.kind,
            round(pair.correlation, 4),
            pair.orientation,
        )
        for pair in found.pairs
    )
    return tuple(joined), tuple(sorted(copies)), {**raised, **repeated, **remarks}


def read(folder: Path) -> tuple[Manifest, str]:
    """Read a manifest back and check it against its header; returns it with the table's SHA-256.

    Raises:
        ManifestError: missing, altered since it was written, or header and table disagree.
    """
    path = folder / TABLE
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        table, pairs = path.read_bytes(), (folder / PAIRS).read_bytes()
    except (OSError, ValueError) as error:
        raise ManifestError(f"{folder}: no complete manifest ({error}); build it again.") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ManifestError(f"{folder / HEADER}: not the header of a manifest; build it again.")
    digest = sha256_of(table)
    for name, found, field_name in (
        (path, digest, "sha256"),
        (folder / PAIRS, sha256_of(pairs), "duplicates_sha256"),
    ):
        if found != header.get(field_name):
            raise ManifestError(f"{name}: altered since it was written; build the manifest again.")
    try:
        manifest = Manifest(
            records=tuple(_parse(table.decode(), path)),
            source=str(header["source"]),
            synthetic=bool(header["synthetic"]),
            dropped={str(reason): tuple(names) for reason, names in header["dropped"].items()},
            citation=tuple(header["citation"]),
            findings={str(remark): tuple(names) for remark, names in header["findings"].items()},
            copies=tuple(_parse_copies(pairs.decode(), folder / PAIRS)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{folder / HEADER}: incomplete header ({error}); build it again.") from None
    if manifest._header(digest, sha256_of(pairs)) != header or manifest.synthetic < _any_synthetic(
        manifest.records
    ):
        raise ManifestError(f"{folder / HEADER}: does not describe the table beside it; build it again.")
    return manifest, digest


def read_picture(root: Roots, record: Record) -> bytes:
    """The bytes of one picture, checked against the manifest.

    Raises:
        ManifestError: the file is gone, lies outside the root, or is not the one that the manifest was
            built from.
    """
    try:
        data = picture_files.read_bytes(root, record.path)
    except (DataError, OSError) as error:
        # An OSError's own text may have the name of the file, which may be a person's.
        why = getattr(error, "strerror", None) or error
        raise ManifestError(
            f"{place_of(record)}: cannot be read below {picture_files.describe_roots(root)} ({why}); say "
            "with --data-root (at a site: --images) where the pictures lie now, or build the manifest again."
        ) from None
    if sha256_of(data) != record.sha256:
        raise ManifestError(
            f"{place_of(record)}: changed since the manifest was built; restore it or build again."
        )
    return data


def _any_synthetic(records: Iterable[Record]) -> bool:
    return any(record.source.startswith(SYNTHETIC) for record in records)


def _counts(values: Iterable[object]) -> dict[str, int]:
    return dict(Counter("unknown" if value in (None, "") else str(value) for value in values))


def _csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)  # csv writes None as an empty cell
    return buffer.getvalue()


def _csv_rows(table: str, columns: Sequence[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(table))
    if tuple(next(reader, ())) != tuple(columns):
        raise ManifestError(f"{path}: expected the columns {', '.join(columns)}; build the manifest again.")
    for cells in reader:
        yield reader.line_num, cells


def _parse(table: str, path: Path) -> Iterator[Record]:
    for line, cells in _csv_rows(table, COLUMNS, path):
        column = "number of cells"
        try:
            row: dict[str, object] = dict(zip(COLUMNS, cells, strict=True))
            row["patient_id"] = row["patient_id"] or None
            for column, read_cell in _READ_CELL.items():
                row[column] = read_cell(str(row[column]))
        except (KeyError, ValueError):
            raise ManifestError(
                f"{path}, line {line}: unreadable {column}; build the manifest again."
            ) from None
        yield Record(**row)  # type: ignore[arg-type]


def _parse_copies(table: str, path: Path) -> Iterator[DuplicatePair]:
    for line, cells in _csv_rows(table, DuplicatePair._fields, path):
        try:
            one, other, kind, correlation, orientation = cells
            yield DuplicatePair(one, other, kind, float(correlation), int(orientation))
        except ValueError:
            raise ManifestError(f"{path}, line {line}: unreadable cell; build the manifest again.") from None

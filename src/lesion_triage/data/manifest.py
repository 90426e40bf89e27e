"""The manifest: every usable picture of a dataset, its hash and its label, in one checked table.

Imports config, the bundle's schema and store, pictures, and the readers in ``data.sources``.

Two files. ``manifest.csv`` holds one row for each picture in order of image id; ``manifest.json`` is its
header and is written last, so its existence means the table is whole. Equal data gives equal bytes.
"""

from __future__ import annotations

import csv
import io
import json
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.bundle.store import write_atomically
from lesion_triage.config import Data, Roots
from lesion_triage.data import consistency, intake, pictures, sources
from lesion_triage.data.records import SYNTHETIC, Record
from lesion_triage.errors import DataError, ManifestError

TABLE = "manifest.csv"
HEADER = "manifest.json"

_COLUMNS = tuple(column.name for column in fields(Record))
_CELLS = operator.attrgetter(*_COLUMNS)
_TRUTH = {"True": True, "False": False, "": None}


@dataclass(frozen=True)
class Manifest:
    """The pictures of one dataset that can be used, and an account of those that cannot."""

    records: tuple[Record, ...]
    """In order of image id."""
    source: str
    """``data.source`` of the configuration it was built from; of a mixture, the names of its parts."""
    synthetic: bool
    """True if any picture was drawn by a program; nothing made from it is for use on people."""
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason, and the names of the pictures that are in the dataset's table but not here."""
    citation: tuple[str, ...] = ()
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Remark, and the names of the pictures or lesions it concerns; they were kept."""

    def write(self, folder: Path) -> str:
        """Write table and header; returns the table's SHA-256, which later files name this manifest by."""
        table = _text(self.records).encode()
        digest = sha256_of(table)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TABLE, table)
        write_atomically(folder / HEADER, canonical_json(self._header(digest)).encode())
        return digest

    def _header(self, digest: str) -> dict[str, object]:
        return {
            "format": 1,
            "source": self.source,
            "synthetic": self.synthetic,
            "sha256": digest,
            "records": len(self.records),
            "counts": {
                "lesions": len({record.lesion_id for record in self.records}),
                "patients": len({record.patient_id for record in self.records if record.patient_id}),
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
    progress: Callable[[int, int], None] | None = None,
    pixels: PixelSpec = PixelSpec(size_px=160),  # noqa: B008 - frozen
) -> Manifest:
    """Read a dataset's table and every picture it names.

    A picture that is missing or cannot be used is dropped and accounted for in ``dropped``. Where
    pictures of one lesion disagree on ``needs_in_person``, the whole lesion takes True: a case goes up,
    never down.

    Args:
        config: names the source and what its reader needs.
        root: folder of the dataset; of a mixture that of each part, or the one that holds them by name;
            for ``source: synthetic`` the folder to draw into.
        progress: called with the number of pictures done and the total, from the calling thread.
        pixels: a picture beyond its limits is dropped; its side does not matter here.

    Raises:
        DataError: the dataset's own table cannot be read.
        ManifestError: more than a tenth of the pictures cannot be used, an image id stands twice, a lesion
            belongs to two patients, or no picture is left.
    """
    root = sources.folders(config, root)
    listing = sources.read(root, config, progress)
    consistency.refuse_ambiguous(listing.records)
    records, unusable = intake.read_all(root, listing.records, pixels, progress)
    dropped = intake.with_missing(unusable, listing.missing)
    intake.refuse_wrong_folder(root, len(records), dropped)
    dropped = {**listing.dropped, **dropped}
    records, contradictions = consistency.settle_lesions(records)
    findings = {**listing.findings, **contradictions, **consistency.repeated_bytes(records)}
    return Manifest(
        records=tuple(sorted(records, key=operator.attrgetter("image_id"))),
        source=" + ".join(config.folders),
        synthetic=_any_drawn(records),
        dropped={reason: tuple(sorted(names)) for reason, names in dropped.items()},
        citation=listing.citation,
        findings=findings,
    )


def read(folder: Path) -> tuple[Manifest, str]:
    """Read a manifest back and check it against its header; returns it with the table's SHA-256.

    Raises:
        ManifestError: missing, altered since it was written, or header and table disagree.
    """
    path = folder / TABLE
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        table = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ManifestError(f"{folder}: no complete manifest ({error}); build it again.") from None
    if not isinstance(header, dict) or header.get("format") != 1:
        raise ManifestError(f"{folder / HEADER}: not the header of a manifest; build it again.")
    digest = sha256_of(table)
    if digest != header.get("sha256"):
        raise ManifestError(f"{path}: altered since it was written; build the manifest again.")
    try:
        manifest = Manifest(
            records=tuple(_parse(table.decode(), path)),
            source=str(header["source"]),
            synthetic=bool(header["synthetic"]),
            dropped={str(reason): tuple(names) for reason, names in header["dropped"].items()},
            citation=tuple(header["citation"]),
            findings={str(remark): tuple(names) for remark, names in header["findings"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{folder / HEADER}: incomplete header ({error}); build it again.") from None
    if manifest._header(digest) != header or manifest.synthetic < _any_drawn(manifest.records):
        raise ManifestError(f"{folder / HEADER}: does not describe the table beside it; build it again.")
    return manifest, digest


def read_picture(root: Roots, record: Record) -> bytes:
    """The bytes of one picture, checked against the manifest.

    Raises:
        ManifestError: the file is gone, lies outside the root, or is not the one that the manifest was
            built from.
    """
    try:
        data = pictures.encoded(root, record.path)
    except (DataError, OSError) as error:
        raise ManifestError(f"image '{record.image_id}': {error}; build the manifest again.") from None
    if sha256_of(data) != record.sha256:
        raise ManifestError(
            f"{pictures.place(root, record.path)}: changed since the manifest was built; "
            "restore it or build again."
        )
    return data


def _any_drawn(records: Iterable[Record]) -> bool:
    return any(record.source.startswith(SYNTHETIC) for record in records)


def _counts(values: Iterable[object]) -> dict[str, int]:
    return dict(Counter("unknown" if value in (None, "") else str(value) for value in values))


def _text(records: Iterable[Record]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_CELLS(record) for record in records)  # csv writes None as an empty cell
    return buffer.getvalue()


def _parse(table: str, path: Path) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(table))
    if tuple(next(reader, ())) != _COLUMNS:
        raise ManifestError(f"{path}: expected the columns {', '.join(_COLUMNS)}; build the manifest again.")
    for cells in reader:
        try:
            row: dict[str, object] = dict(zip(_COLUMNS, cells, strict=True))
            row["patient_id"] = row["patient_id"] or None
            row["needs_in_person"] = _TRUTH[str(row["needs_in_person"])]
            row["age_approx"] = float(str(row["age_approx"])) if row["age_approx"] else None
            row["width_px"], row["height_px"] = int(str(row["width_px"])), int(str(row["height_px"]))
        except (KeyError, ValueError) as error:
            raise ManifestError(f"{path}, line {reader.line_num}: unreadable cell ({error}).") from None
        yield Record(**row)  # type: ignore[arg-type]

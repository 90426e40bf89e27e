"""Reader for PH2 in its official layout. Imports records, labels, tables and the exception tree.

Mendonca, Ferreira, Marques, Marcal, Rozeira, PH2: a dermoscopic image database for research and
benchmarking, EMBC 2013, doi:10.1109/EMBC.2013.6610779. Licence: research and education. Official page:
https://www.fc.up.pt/addi/ph2%20database.html.

The layout is ``PH2_dataset.txt``, whose rows are enclosed in double bars (name, histological diagnosis,
clinical diagnosis as 0 common naevus, 1 atypical naevus, 2 melanoma, then dermoscopic criteria), and ``PH2
Dataset images/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp``; masks beside them are not read. The legend below
the table is skipped. The spreadsheet with the same content is not read.

Traps: 200 pictures, 40 of melanoma, from one camera in one hospital; naevi were mostly not biopsied. BMP
files are losslessly converted to PNG on their way to the pixel path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import HISTOPATHOLOGY, Listing, RawRecord
from lesion_triage.data.sources.tables import JPEG, RecordCollector, Row, scan_folder
from lesion_triage.errors import DataError

LICENSE = "research and education, terms at www.fc.up.pt/addi"
ATTRIBUTION = "PH2, Mendonca et al., EMBC 2013, doi:10.1109/EMBC.2013.6610779"
TABLE = "PH2_dataset.txt"

_HEADER = ("Name", "Histological Diagnosis", "Clinical Diagnosis")


def read(root: Path) -> Listing:
    """List every row of the text table.

    Raises:
        DataError: no table, not the table of PH2, a code that is not in the label table.
    """
    folder = scan_folder(root, (".bmp", ".png", *JPEG))
    table = folder.table((TABLE,), "PH2")
    collector = RecordCollector()

    def record(row: Row) -> RawRecord | None:
        image = row["Name"]
        needs = label_for("ph2", row["Clinical Diagnosis"]).needs_in_person
        if image not in folder.pictures:
            collector.missing.append(image)
            return None
        return RawRecord(
            image_id=image,
            path=folder.pictures[image],
            lesion_id=image,
            diagnosis=row["Clinical Diagnosis"],
            diagnosis_confirm_type=HISTOPATHOLOGY if row["Histological Diagnosis"] else "clinical",
            needs_in_person=needs,
            source="ph2",
            image_type="dermoscopic",
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
        )

    collector.add_rows(table, _rows(table), record)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}")


def _rows(table: Path) -> Iterator[tuple[int, Row]]:
    """Rows between double bars, up to the legend."""
    try:
        lines = table.read_text(encoding="utf-8-sig", errors="strict").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read as UTF-8 text ({error}).") from None
    header = _cells(lines[0]) if lines else []
    if tuple(header[: len(_HEADER)]) != _HEADER:
        raise DataError(f"{table}: expected the columns {', '.join(_HEADER)} between double bars.")
    width = len(_cells(lines[1])) if len(lines) > 1 else 0
    for number, line in enumerate(lines[1:], start=2):
        if not line.startswith("||"):
            return
        cells = _cells(line)
        if len(cells) != width or width < len(_HEADER) or not cells[0]:
            raise DataError(f"{table}, line {number}: more or fewer cells than in the other rows.")
        yield number, dict(zip(_HEADER, cells, strict=False))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("||").removesuffix("||").split("||")]

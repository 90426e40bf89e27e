"""Reader for DermaMNIST from its npz file. Imports records, labels, picture files and the exception tree.

Yang et al., MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image
classification, Scientific Data 10, 41 (2023), doi:10.1038/s41597-022-01721-8, made from HAM10000
(doi:10.1038/sdata.2018.161); CC BY-NC 4.0. Official page: https://medmnist.com,
doi:10.5281/zenodo.10519652.

The layout is one npz file, ``dermamnist.npz`` or ``dermamnist_64.npz``, ``_128``, ``_224``, with
``{train,val,test}_images`` (n, side, side, 3) uint8 and ``{train,val,test}_labels`` (n, 1).

Traps: the official splits were assigned picture by picture, while HAM10000 has several pictures of a
lesion, so lesions cross them (Abhishek, Jain, Hamarneh, Scientific Data 12, 196 (2025),
doi:10.1038/s41597-025-04382-5). The file names no lesions, so no split of ours can repair that: use it for
trying out, not for a meaningful certificate. 28 pixels: ``calibrate.quality.min_short_side_px`` must allow
them. It is HAM10000: never mix the two.
"""

from __future__ import annotations

from pathlib import Path

from lesion_triage.data import picture_files
from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord, placeholder_lesion_id
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC 4.0"
ATTRIBUTION = "DermaMNIST, Yang et al., Scientific Data 2023, doi:10.1038/s41597-022-01721-8"
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read(root: Path) -> Listing:
    """List every picture of the one npz file below the root; each is a lesion of its own.

    Raises:
        DataError: no npz file or several, an array missing or of another shape, a number that is not a class.
    """
    files = sorted(path for path in root.glob("dermamnist*.npz") if path.is_file())
    if len(files) != 1:
        raise DataError(
            f"{root}: expected one file dermamnist.npz (or dermamnist_64.npz and so on) here, found "
            f"{len(files) or 'none'}; give the folder that holds it with --data-root."
        )
    records: list[RawRecord] = []
    for prefix, split in SPLITS.items():
        try:
            labels = picture_files.npz_array(files[0], f"{prefix}_labels")
            shape = picture_files.npz_shape(files[0], f"{prefix}_images")
        except OSError as error:
            raise DataError(f"{error}; complete the download.") from None
        if len(shape) != 4 or shape[3] != 3 or labels.shape != (shape[0], 1):
            raise DataError(
                f"{files[0]}: expected {prefix}_images (n, side, side, 3) and {prefix}_labels (n, 1), found "
                f"{shape} and {labels.shape}."
            )
        for number, label in enumerate(labels[:, 0].tolist()):
            try:
                records.append(_record(files[0].name, prefix, split, number, str(label)))
            except DataError as error:
                raise DataError(f"{files[0]}, {prefix}_labels, row {number}: {error}") from None
    return Listing(records=tuple(records), citation=(f"{ATTRIBUTION}; {LICENSE}",))


def _record(file: str, prefix: str, split: str, number: int, code: str) -> RawRecord:
    name = f"{prefix}-{number:05}"
    return RawRecord(
        image_id=name,
        path=f"{file}#{prefix}_images/{number}",
        lesion_id=placeholder_lesion_id(name),
        diagnosis=code,
        needs_in_person=label_for("dermamnist", code).needs_in_person,
        source="dermamnist",
        image_type="dermoscopic",
        copyright_license=LICENSE,
        attribution=ATTRIBUTION,
        official_split=split,
    )

"""Opens every picture once: hash, size, descriptor, and whether the pixel path can use it.

Imports records, the picture files, the perceptual hash, the bundle's pixel path and the exception tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle import pixels
from lesion_triage.bundle.document import sha256_of
from lesion_triage.bundle.parallel import available_cpus
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Roots
from lesion_triage.console import ProgressCallback
from lesion_triage.data import perceptual_hash, picture_files
from lesion_triage.data.perceptual_hash import SIDE_PX, Descriptors
from lesion_triage.data.records import RAW_COLUMNS, Listing, RawRecord, Record, place_of
from lesion_triage.errors import ImageError, ManifestError

MAX_DROPPED_SHARE = 0.10
"""Beyond this the folder is probably the wrong one, and a manifest of the rest would be a silent error."""

MISSING = "image_missing"
"""The table names the picture, but the folder lacks it; the other reasons are the pixel path's codes."""

_BLOCK = 1024


def read_pictures(
    root: Roots,
    listed: Sequence[RawRecord],
    spec: PixelSpec,
    progress: ProgressCallback | None = None,
) -> tuple[list[Record], Descriptors, dict[str, tuple[str, ...]]]:
    """Read and decode every listed picture, several at a time.

    No other check finds a truncated file; a picture that passes here does not stop a training run later. A
    JPEG is decoded at the coarsest scale that fills a small side: fast, yet every byte is read.

    Returns:
        The usable pictures in the order given, their descriptors, and for each reason the image ids that were
        dropped for it.
    """
    small = spec.model_copy(update={"size_px": SIDE_PX})
    records: list[Record] = []
    descriptors = perceptual_hash.empty_descriptors(len(listed))
    dropped: dict[str, list[str]] = {}
    with ThreadPoolExecutor(max_workers=min(16, 2 * available_cpus())) as pool:
        rest = iter(listed)
        done = 0
        # In blocks: 400,000 pending futures would take more memory than the records.
        while block := list(islice(rest, _BLOCK)):
            for raw, found in zip(
                block, pool.map(lambda raw: _read_picture(root, raw, small), block), strict=True
            ):
                if isinstance(found, _ReadPicture):
                    place = len(records)
                    records.append(found.record)
                    descriptors.coefficients[place] = found.coefficients
                    descriptors.digests[place], descriptors.low_contrast[place] = (
                        found.digest,
                        found.low_contrast,
                    )
                else:
                    dropped.setdefault(found, []).append(raw.image_id)
                done += 1
                if progress is not None:
                    progress(done, len(listed))
    kept = descriptors.take(np.arange(len(records)))
    return records, kept, {reason: tuple(names) for reason, names in dropped.items()}


def add_unread(dropped: Mapping[str, Sequence[str]], listing: Listing) -> dict[str, tuple[str, ...]]:
    """The account of dropped pictures, plus those that a reader did not find, or that the server refuses."""
    missing = (*dropped.get(MISSING, ()), *listing.missing)
    refused = {
        reason: [record.image_id for record in left_out] for reason, left_out in listing.refused.items()
    }
    account = {**dropped, **refused, **({MISSING: missing} if missing else {})}
    return {reason: tuple(names) for reason, names in account.items()}


def refuse_wrong_folder(
    root: Roots, listed: Sequence[RawRecord], usable: int, dropped: Mapping[str, Sequence[str]]
) -> None:
    """Raise if so few pictures are usable that the data root must be wrong or incomplete.

    Args:
        root: of the pictures.
        listed: the pictures in the table, those that the server refuses included.
        usable: how many of them are usable.
        dropped: the others, by reason.

    Raises:
        ManifestError: more than ``MAX_DROPPED_SHARE`` of the pictures were dropped, or none is left.
    """
    where = picture_files.describe_roots(root)
    lost = sum(len(names) for names in dropped.values())
    if usable and lost <= MAX_DROPPED_SHARE * (usable + lost):
        return
    if not lost:
        raise ManifestError(
            f"{where}: expected pictures, found a table that names none; check the table, and --data-root "
            "(at a site: --cases and --images)."
        )
    by_id = {raw.image_id: raw for raw in listed}
    reasons = "; ".join(
        f"{reason}: {len(names)}" + _example(root, by_id.get(min(names)), is_missing=reason == MISSING)
        for reason, names in sorted(dropped.items())
    )
    raise ManifestError(
        f"{where}: {lost} of the {usable + lost} pictures in the dataset's table cannot be used ({reasons}); "
        "at most one in ten may be. Check --data-root (at a site: --images), or complete the download."
    )


def _example(root: Roots, raw: RawRecord | None, *, is_missing: bool) -> str:
    """Where one of the dropped pictures is described, if known; names of files may be those of people."""
    if raw is None:
        return ""
    hint = _letter_case_hint(root, raw) if is_missing else ""
    return f", such as that of {place_of(raw)}{hint}"


def _letter_case_hint(root: Roots, raw: RawRecord) -> str:
    """A hint if there is a file whose name differs only in upper and lower case; else empty."""
    wanted = picture_files.resolve_path(root, raw.path)
    if not wanted.parent.is_dir():
        return ""
    letters = wanted.name.casefold()
    is_there = any(file.name.casefold() == letters for file in wanted.parent.iterdir())
    return " (a file there differs from it only in capital letters, which must agree)" if is_there else ""


class _ReadPicture(NamedTuple):
    record: Record
    coefficients: NDArray[np.int8]
    low_contrast: bool
    digest: int


def _read_picture(root: Roots, raw: RawRecord, spec: PixelSpec) -> _ReadPicture | str:
    """The record with the file's facts and its descriptor, or the reason why the file cannot be used."""
    try:
        data = picture_files.read_bytes(root, raw.path)
        picture = pixels.decode(data, spec)
    except FileNotFoundError:
        return MISSING
    except OSError:
        return "image_not_readable"
    except ImageError as error:
        return error.code
    size = f"{picture.width_px}x{picture.height_px}:".encode()
    digest = hashlib.blake2b(size + picture.pixels.tobytes(), digest_size=8).digest()
    record = Record(
        **{name: getattr(raw, name) for name in RAW_COLUMNS},
        row=raw.row,
        sha256=sha256_of(data),
        width_px=picture.width_px,
        height_px=picture.height_px,
    )
    return _ReadPicture(record, *perceptual_hash.coefficients(picture.pixels), int.from_bytes(digest))

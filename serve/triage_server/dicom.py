"""Extracts the photograph from a DICOM file, and nothing else. Imports pydicom lazily, if it is installed.

Only tags that identify nobody are read; pydicom skips the rest. A JPEG baseline frame is passed on byte for
byte, uncompressed pixels as a PNG. Both go to ``bundle.pixels``, which alone decodes.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from lesion_triage.bundle.schema import PixelSpec
from triage_server.problems import RequestError

DICOM_TYPE = "application/dicom"
CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography Image Storage",
}
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_IMPLICIT = "1.2.840.10008.1.2"
_SYNTAXES = {
    _IMPLICIT: "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    _JPEG_BASELINE: "JPEG Baseline",
}
_TAGS = (
    *(
        "SOPClassUID",
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
    ),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("NumberOfFrames", "ExtendedOffsetTable", "ICCProfile", "PixelData"),
)
_OTHER_PICTURE = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
_META_BYTES = 65_536
_MOST_READS = 50_000
"""A photograph's file takes some hundreds. An element may be only 8 bytes and costs one or two reads."""
_MOST_FRAGMENTS = 10_000
_MOST_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""A JPEG segment marker, after any other bytes: in coded data, 0xFF is followed by zero or a restart."""
_SOI, _EOI = b"\xd8", b"\xd9"
_SIZES = frozenset(bytes([code]) for code in range(0xC0, 0xD0)) - {b"\xc4", b"\xc8", b"\xcc"}
"""Start of frame, which holds the size, for every coding process."""
_ITEM = b"\xfe\xff\x00\xe0"
_LONG = (b"OB", b"UN", b"OW", b"SQ", b"UT", b"UC", b"UR")
"""Value representations with a 4-byte length, PS3.5 section 7.1.2."""


def available() -> bool:
    """Whether DICOM files are read here, that is, pydicom is installed."""
    try:
        return find_spec("pydicom") is not None
    except ValueError:  # a module that is blocked
        return False


@cache
def _reader() -> ModuleType:
    """pydicom, silenced. Its import takes a fifth of the server's start, so it waits for the first file."""
    import pydicom  # noqa: PLC0415 - see above
    import pydicom.config  # noqa: PLC0415
    import pydicom.encaps  # noqa: PLC0415
    import pydicom.filereader  # noqa: PLC0415
    import pydicom.tag  # noqa: PLC0415
    import pydicom.uid  # noqa: PLC0415

    # pydicom logs odd values, and one may be a person's name.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


class _Bounded(io.BytesIO):
    """A file that raises when it is read in too many pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MOST_READS:
            raise ValueError("too many elements")
        return super().read(size)


def photograph(data: bytes, spec: PixelSpec, index: int) -> bytes:
    """The picture file in ``data``: ``data`` itself, unless it is a DICOM file.

    Args:
        data: as sent.
        spec: limits on bytes and pixels, applied before anything is decoded.
        index: of the photograph in its case, from 0.

    Raises:
        RequestError: a DICOM file that is damaged, too large or of a kind that is not read; or DICOM is not
            read here at all.
    """
    if data[128:132] != b"DICM":
        return data
    if not available():
        raise RequestError("dicom_not_available", index=index)
    if data.startswith(_OTHER_PICTURE):
        # Two files in one: another program may show another picture than the one that was scored.
        raise RequestError("dicom_not_valid", index=index)
    syntaxes, place = _transfer_syntaxes(data)
    if len(syntaxes) > 1:
        raise RequestError("dicom_not_valid", index=index)
    syntax = "".join(syntaxes)
    if syntax not in _SYNTAXES:
        raise _unsupported(index, f"the transfer syntax {_name(syntax)}", ", ".join(_SYNTAXES.values()))
    try:
        dataset = _data_set(data, place, implicit=syntax == _IMPLICIT)
        return _picture(dataset, syntax, spec, index)
    except (RequestError, MemoryError):
        raise
    except Exception:  # pydicom raises anything, and quotes the file
        raise RequestError("dicom_not_valid", index=index) from None


def _transfer_syntaxes(data: bytes) -> tuple[list[str], int]:
    """Read before pydicom sees the file: it would inflate a deflated file without limit.

    The group of meta elements is always Explicit VR Little Endian (PS3.10, section 7.1).

    Returns:
        The UIDs, one in a proper file; and where the data set begins.
    """
    found: list[str] = []
    place, end = 132, min(len(data), _META_BYTES)
    while place + 12 <= end and data[place : place + 2] == b"\x02\x00":
        if data[place + 4 : place + 6] in _LONG:
            start, length = place + 12, int.from_bytes(data[place + 8 : place + 12], "little")
        else:
            start, length = place + 8, int.from_bytes(data[place + 6 : place + 8], "little")
        if data[place + 2 : place + 4] == b"\x10\x00":
            found.append(data[start : start + min(length, 64)].rstrip(b"\0 ").decode("ascii", "replace"))
        place = start + length
    return found, place


def _data_set(data: bytes, place: int, *, implicit: bool) -> Any:
    """The data set alone: of the meta elements pydicom would believe the last syntax, and inflate by it."""
    pydicom, stream = _reader(), _Bounded(data)
    stream.seek(place)
    tags = [pydicom.tag.Tag(name) for name in _TAGS]
    return pydicom.filereader.read_dataset(
        stream, is_implicit_VR=implicit, is_little_endian=True, specific_tags=tags
    )


def _picture(dataset: Any, syntax: str, spec: PixelSpec, index: int) -> bytes:
    if dataset.SOPClassUID not in CLASSES:
        found = f"an object of class {_name(dataset.SOPClassUID)}"
        raise _unsupported(index, found, " or ".join(CLASSES.values()))
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise _several(index)
    bits = (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation)
    if dataset.SamplesPerPixel != 3 or bits != (8, 8, 7, 0):
        raise _unsupported(index, "another pixel format", "three unsigned samples of 8 bits for each pixel")
    width_px, height_px = int(dataset.Columns), int(dataset.Rows)
    if width_px * height_px > spec.max_pixels:
        raise RequestError("image_too_large", index=index)
    if syntax == _JPEG_BASELINE:
        return _jpeg(dataset, index)
    if dataset.PhotometricInterpretation != "RGB":
        raise _unsupported(index, "uncompressed pixels that are not RGB", "RGB")
    levels = np.frombuffer(dataset.PixelData, np.uint8)
    size = width_px * height_px * 3
    if size == 0 or not size <= len(levels) <= size + 1:  # an odd length is padded to an even one
        raise RequestError("dicom_not_valid", index=index)
    if dataset.get("PlanarConfiguration", 0) == 1:
        planes = levels[:size].reshape(3, height_px, width_px)
        levels = np.ascontiguousarray(planes.transpose(1, 2, 0))
    stream = io.BytesIO()
    image = Image.fromarray(levels[:size].reshape(height_px, width_px, 3) if levels.ndim == 1 else levels)
    image.save(stream, "PNG", compress_level=1, icc_profile=dataset.get("ICCProfile"))
    return stream.getvalue()


def _jpeg(dataset: Any, index: int) -> bytes:
    colours = dataset.PhotometricInterpretation
    if colours not in ("YBR_FULL_422", "YBR_FULL"):
        # A JPEG decoder assumes that three unmarked components are YCbCr.
        raise _unsupported(index, "JPEG pixels that are not YBR", "YBR_FULL_422 or YBR_FULL")
    if dataset.PixelData.count(_ITEM) > _MOST_FRAGMENTS:
        raise RequestError("dicom_not_valid", index=index)
    encaps, items = _reader().encaps, io.BytesIO(dataset.PixelData)
    if len(encaps.parse_basic_offsets(items)) > 1 or len(dataset.get("ExtendedOffsetTable") or b"") > 8:
        raise _several(index)
    frame = b"".join(encaps.generate_fragments(items))
    if not frame.startswith(b"\xff\xd8\xff"):
        raise RequestError("dicom_not_valid", index=index)
    _check_frame(frame, (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel), index)
    return frame


def _check_frame(frame: bytes, expected: tuple[int, int, int], index: int) -> None:
    """Check that there is one picture of the stated size; a stated number of frames proves nothing.

    Args:
        frame: all encapsulated bytes. If they are cut off, the pixel path will say so.
        expected: rows, columns and samples per pixel.
        index: of the photograph.
    """
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if (found := _MARKER.search(frame, place)) is None:
            return
        place = found.end()
        if found[1] in (_SOI, _EOI):
            if found[1] == _SOI or frame.find(b"\xff" + _SOI, place) >= 0:
                raise _several(index)
            return
        if found[1] in _SIZES and struct.unpack_from(">HHB", frame, place + 3) != expected:
            break
        place += int.from_bytes(frame[place : place + 2], "big")
    raise RequestError("dicom_not_valid", index=index)


def _several(index: int) -> RequestError:
    return _unsupported(index, "several frames", "one frame")


def _name(uid: str) -> str:
    """The UID's name in the standard; an unknown UID, which may be anything, is not repeated."""
    pydicom = _reader()
    known = pydicom.uid.UID(uid, pydicom.config.IGNORE)
    return "(not known)" if known.name == uid else known.name


def _unsupported(index: int, found: str, expected: str) -> RequestError:
    return RequestError("dicom_not_supported", index=index, found=found, expected=expected)

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
SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography Image Storage",
}
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_TRANSFER_SYNTAXES = {
    _IMPLICIT_LITTLE_ENDIAN: "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    _JPEG_BASELINE: "JPEG Baseline",
}
_READ_ATTRIBUTES = (
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
_PICTURE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
_MAX_META_BYTES = 65_536
_MAX_READS = 50_000
"""A photograph's file takes some hundreds. An element may be only 8 bytes and costs one or two reads."""
_MAX_FRAGMENTS = 10_000
_MAX_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""A JPEG segment marker, after any other bytes: in coded data, 0xFF is followed by zero or a restart."""
_SOI, _EOI = b"\xd8", b"\xd9"
_START_OF_FRAME = frozenset(bytes([code]) for code in range(0xC0, 0xD0)) - {b"\xc4", b"\xc8", b"\xcc"}
"""Markers of a frame header, which has the size, for every coding process."""
_ITEM_TAG = b"\xfe\xff\x00\xe0"
_VRS_WITH_LONG_LENGTH = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Value representations with a 4-byte length, PS3.5 section 7.1.2."""


def available() -> bool:
    """Whether DICOM files are read here, that is, pydicom is installed."""
    try:
        return find_spec("pydicom") is not None
    except ValueError:  # a module that is blocked
        return False


@cache
def _pydicom() -> ModuleType:
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


class _BoundedReader(io.BytesIO):
    """A file that raises when it is read in too many pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
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
    if data.startswith(_PICTURE_SIGNATURES):
        # Two files in one: another program may show another picture than the one that was scored.
        raise RequestError("dicom_not_valid", index=index)
    syntaxes, offset = _transfer_syntaxes(data)
    if len(syntaxes) > 1:
        raise RequestError("dicom_not_valid", index=index)
    syntax = "".join(syntaxes)
    if syntax not in _TRANSFER_SYNTAXES:
        raise _unsupported(
            index, f"the transfer syntax {_uid_name(syntax)}", ", ".join(_TRANSFER_SYNTAXES.values())
        )
    try:
        dataset = _data_set(data, offset, implicit=syntax == _IMPLICIT_LITTLE_ENDIAN)
        return _picture_file(dataset, syntax, spec, index)
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
    offset, end = 132, min(len(data), _MAX_META_BYTES)
    while offset + 12 <= end and data[offset : offset + 2] == b"\x02\x00":
        if data[offset + 4 : offset + 6] in _VRS_WITH_LONG_LENGTH:
            start, length = offset + 12, int.from_bytes(data[offset + 8 : offset + 12], "little")
        else:
            start, length = offset + 8, int.from_bytes(data[offset + 6 : offset + 8], "little")
        if data[offset + 2 : offset + 4] == b"\x10\x00":
            found.append(data[start : start + min(length, 64)].rstrip(b"\0 ").decode("ascii", "replace"))
        offset = start + length
    return found, offset


def _data_set(data: bytes, offset: int, *, implicit: bool) -> Any:
    """The data set alone: of the meta elements pydicom would believe the last syntax, and inflate by it."""
    pydicom, stream = _pydicom(), _BoundedReader(data)
    stream.seek(offset)
    tags = [pydicom.tag.Tag(name) for name in _READ_ATTRIBUTES]
    return pydicom.filereader.read_dataset(
        stream, is_implicit_VR=implicit, is_little_endian=True, specific_tags=tags
    )


def _picture_file(dataset: Any, syntax: str, spec: PixelSpec, index: int) -> bytes:
    if dataset.SOPClassUID not in SOP_CLASSES:
        found = f"an object of class {_uid_name(dataset.SOPClassUID)}"
        raise _unsupported(index, found, " or ".join(SOP_CLASSES.values()))
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise _several_frames(index)
    bits = (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation)
    if dataset.SamplesPerPixel != 3 or bits != (8, 8, 7, 0):
        raise _unsupported(index, "another pixel format", "three unsigned samples of 8 bits for each pixel")
    width_px, height_px = int(dataset.Columns), int(dataset.Rows)
    if width_px * height_px > spec.max_pixels:
        raise RequestError("image_too_large", index=index)
    if syntax == _JPEG_BASELINE:
        return _jpeg_frame(dataset, index)
    if dataset.PhotometricInterpretation != "RGB":
        raise _unsupported(index, "uncompressed pixels that are not RGB", "RGB")
    samples = np.frombuffer(dataset.PixelData, np.uint8)
    size = width_px * height_px * 3
    if size == 0 or not size <= len(samples) <= size + 1:  # an odd length is padded to an even one
        raise RequestError("dicom_not_valid", index=index)
    if dataset.get("PlanarConfiguration", 0) == 1:
        pixels = samples[:size].reshape(3, height_px, width_px).transpose(1, 2, 0)
    else:
        pixels = samples[:size].reshape(height_px, width_px, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1, icc_profile=dataset.get("ICCProfile"))
    return stream.getvalue()


def _jpeg_frame(dataset: Any, index: int) -> bytes:
    colours = dataset.PhotometricInterpretation
    if colours not in ("YBR_FULL_422", "YBR_FULL"):
        # A JPEG decoder assumes that three unmarked components are YCbCr.
        raise _unsupported(index, "JPEG pixels that are not YBR", "YBR_FULL_422 or YBR_FULL")
    if dataset.PixelData.count(_ITEM_TAG) > _MAX_FRAGMENTS:
        raise RequestError("dicom_not_valid", index=index)
    encaps, items = _pydicom().encaps, io.BytesIO(dataset.PixelData)
    if len(encaps.parse_basic_offsets(items)) > 1 or len(dataset.get("ExtendedOffsetTable") or b"") > 8:
        raise _several_frames(index)
    frame = b"".join(encaps.generate_fragments(items))
    if not frame.startswith(b"\xff\xd8\xff"):
        raise RequestError("dicom_not_valid", index=index)
    _check_single_frame(frame, (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel), index)
    return frame


def _check_single_frame(frame: bytes, expected: tuple[int, int, int], index: int) -> None:
    """Check that there is one picture of the stated size; a stated number of frames proves nothing.

    Args:
        frame: all encapsulated bytes. If they are cut off, the pixel path will say so.
        expected: rows, columns and samples per pixel.
        index: of the photograph.
    """
    offset = 2
    for _ in range(_MAX_SEGMENTS):
        if (found := _MARKER.search(frame, offset)) is None:
            return
        offset = found.end()
        if found[1] in (_SOI, _EOI):
            if found[1] == _SOI or frame.find(b"\xff" + _SOI, offset) >= 0:
                raise _several_frames(index)
            return
        if found[1] in _START_OF_FRAME and struct.unpack_from(">HHB", frame, offset + 3) != expected:
            break
        offset += int.from_bytes(frame[offset : offset + 2], "big")
    raise RequestError("dicom_not_valid", index=index)


def _several_frames(index: int) -> RequestError:
    return _unsupported(index, "several frames", "one frame")


def _uid_name(uid: str) -> str:
    """The UID's name in the standard; an unknown UID, which may be anything, is not repeated."""
    pydicom = _pydicom()
    known = pydicom.uid.UID(uid, pydicom.config.IGNORE)
    return "(not known)" if known.name == uid else known.name


def _unsupported(index: int, found: str, expected: str) -> RequestError:
    return RequestError("dicom_not_supported", index=index, found=found, expected=expected)

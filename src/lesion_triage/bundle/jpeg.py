"""What can be told of a JPEG file before decoding: its scans, its end, and whether it is incomplete.

Imports the exception tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lesion_triage.errors import ImageError

_MAX_SCANS = 50
"""A progressive JPEG has about ten. Each scan is a pass over the whole picture and can be as short as 75
bytes, so a small file of nothing but scans could keep a processor busy for hours."""
_SOS, _EOI = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
"""Markers followed by a length. FF 00 is data; FF 01 and FF D0 to FF D7 have no length."""
_ZERO_TAIL = bytes(64)
_ARBITRARY_DATA = bytes(range(255))
"""Arbitrary entropy-coded data. It begins with 00, lest an FF before it become a marker, and has no FF."""
_EXTRA_SCAN_DATA = b"".join(
    (_ARBITRARY_DATA, *(bytes((0xFF, 0xD0 + number)) + _ARBITRARY_DATA for number in range(8)))
)
"""The same after each restart marker at which a decoder may be waiting."""


def refuse_too_many_scans(data: bytes) -> None:
    """Refuse a file with too many scans, counted up to its end marker: a phone may append a video.

    Raises:
        ImageError: ``image_not_decodable``.
    """
    if data.count(bytes((0xFF, _SOS))) <= _MAX_SCANS:
        return
    scans = sum(marker == _SOS for marker, _ in _markers(data))
    if scans > _MAX_SCANS:
        raise ImageError(
            "image_not_decodable",
            f"The JPEG has {scans} scans, expected at most {_MAX_SCANS}; save it again and send the new "
            "file.",
        )


def refuse_zero_filled(data: bytes) -> None:
    """Refuse a file whose rest was never written: zeros where the end marker should be.

    With some Huffman tables zeros are valid picture data, without end.

    Raises:
        ImageError: ``image_not_decodable``.
    """
    if data.endswith(_ZERO_TAIL) and _eoi_offset(data) is None:
        raise truncated_error()


def with_extra_scan_data(data: bytes) -> bytes:
    """The same file with more picture data inserted at the end of each scan.

    A decoder that has a whole scan never reads them; where picture data are missing, it decodes them.
    """
    pieces: list[bytes] = []
    start, in_scan = 0, False
    for marker, offset in _markers(data):
        if in_scan:
            pieces += (data[start:offset], _EXTRA_SCAN_DATA)
            start = offset
        in_scan = marker == _SOS
    return b"".join((*pieces, data[start:]))


def truncated_error() -> ImageError:
    """The error for a file whose picture data end before the picture does."""
    return ImageError(
        "image_not_decodable",
        "The picture cannot be decoded (its data end before it does); it is damaged or incomplete, send the "
        "file again.",
    )


def _eoi_offset(data: bytes) -> int | None:
    """Position of the first picture's end marker; None: there is none."""
    return next((offset for marker, offset in _markers(data) if marker == _EOI), None)


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker and its position, up to the end marker, skipping what is inside segments."""
    offset = 2
    while found := _MARKER.search(data, offset):
        yield found[1][0], found.start()
        if found[1][0] == _EOI:
            return
        offset = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))

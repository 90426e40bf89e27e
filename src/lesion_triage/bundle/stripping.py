"""Removes what a photograph's file tells about people and places: other bytes, the same pixels.

Imports numpy, the pixel path, PNG files, the schema and the exception tree.

The file is taken apart and reassembled without decoding it. Whatever is not listed here is dropped: EXIF
except for the orientation, GPS, XMP, IPTC, comments, previews, names of colour profiles, and appended data.
The colour profile itself is kept if the pixel path applies it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from lesion_triage.bundle.pixels import decode, look_of
from lesion_triage.bundle.png import picture_bytes
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.errors import ImageError

_JPEG_KEPT = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD})
"""Frames, tables, scans and restart intervals; no application segment and no comment."""
_AFTER_SCAN = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])")
"""FF 00 is data, FF D0 to FF D7 are restart markers, FF FF is fill."""
_PNG_KEPT = {b"IHDR": 13, b"PLTE": 768, b"tRNS": 256}
"""Chunks kept beside the picture data, and how many bytes of each can be meaningful."""
_PIECE = 2**20
_WEBP_KEPT = frozenset({b"ALPH", b"VP8 ", b"VP8L"})
_ICC_PIECE = 65_519
"""A JPEG segment holds 65,533 bytes; 14 of them identify it as a piece of a profile and number it."""


def strip(data: bytes, spec: PixelSpec) -> bytes:
    """The same photograph, with nothing in its file but what its pixels depend on.

    This is verified for each photograph: the result decodes to the same square, size and quantisation steps,
    so every gate and the network see the same as before.

    Raises:
        ImageError: as ``bundle.pixels.decode``; or ``image_not_storable``: the parts of the file cannot be
            separated, or its look depends on something that is not part of the picture.
    """
    before = decode(data, spec)
    orientation, profile = look_of(data)
    try:
        if data.startswith(b"\xff\xd8"):
            kept = _jpeg(data, orientation, profile)
        elif data.startswith(b"RIFF"):
            kept = _webp(data, orientation, profile)
        else:
            kept = _png(data, orientation, profile)
        after = decode(kept, spec)
    except (struct.error, IndexError, ImageError):
        raise _not_storable() from None
    same_size = (before.width_px, before.height_px) == (after.width_px, after.height_px)
    if (
        not np.array_equal(before.pixels, after.pixels)
        or not same_size
        or before.quantisation != after.quantisation
    ):
        raise _not_storable()
    return kept


def media_type(data: bytes) -> str:
    """Media type of a file that ``strip`` returned."""
    if data.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "image/webp" if data.startswith(b"RIFF") else "image/png"


def _not_storable() -> ImageError:
    return ImageError(
        "image_not_storable",
        "The metadata in the picture's file cannot be removed; save it again and send the new file.",
    )


def _exif(orientation: int) -> bytes:
    """A TIFF directory with one entry, tag 274."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def _jpeg(data: bytes, orientation: int, profile: bytes | None) -> bytes:
    jfif = adobe = b""
    rest: list[bytes] = []
    for marker, segment in _jpeg_segments(data):
        if marker == 0xE0 and segment.startswith(b"JFIF\0"):
            jfif = _jpeg_segment(0xE0, segment[:12].ljust(12, b"\0") + b"\0\0")  # no preview
        elif marker == 0xEE and segment.startswith(b"Adobe"):
            adobe = _jpeg_segment(0xEE, segment[:12])  # says whether colours are YCbCr
        elif marker is None:
            rest.append(segment)
        elif marker in _JPEG_KEPT:
            rest.append(_jpeg_segment(marker, segment))
    head = [b"\xff\xd8", jfif]
    if orientation != 1:
        head.append(_jpeg_segment(0xE1, b"Exif\0\0" + _exif(orientation)))
    pieces = [profile[at : at + _ICC_PIECE] for at in range(0, len(profile), _ICC_PIECE)] if profile else []
    for number, piece in enumerate(pieces, start=1):
        head.append(_jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(pieces))) + piece))
    return b"".join((*head, adobe, *rest, b"\xff\xd9"))


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _jpeg_segments(data: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Marker and body of each segment up to the end marker; for scan data the marker is None."""
    place = 2
    while place < len(data):
        if data[place] != 0xFF:
            raise _not_storable()
        while data[place] == 0xFF:
            place += 1
        marker = data[place]
        place += 1
        if marker == 0xD9:
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        (length,) = struct.unpack_from(">H", data, place)
        if length < 2 or place + length > len(data):
            raise _not_storable()
        yield marker, data[place + 2 : place + length]
        place += length
        if marker == 0xDA:
            found = _AFTER_SCAN.search(data, place)
            end = found.start() if found else len(data)
            yield None, data[place:end]
            place = end


def _png(data: bytes, orientation: int, profile: bytes | None) -> bytes:
    kept, compressed, expected = [data[:8]], bytearray(), 0
    place = 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        body = data[place + 8 : end - 4]
        if kind == b"IDAT":
            compressed += body
        if kind in _PNG_KEPT:
            kept.append(_png_chunk(kind, body[: _PNG_KEPT[kind]]))
        if kind == b"IHDR":
            expected = picture_bytes(body)
            if profile:
                kept.append(_png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)))
            if orientation != 1:
                kept.append(_png_chunk(b"eXIf", _exif(orientation)))
        if kind == b"IEND":
            break
        place = end
    pixels = _png_chunk(b"IDAT", _png_pixels(bytes(compressed), expected))
    return b"".join((*kept, pixels, _png_chunk(b"IEND", b"")))


def _png_pixels(compressed: bytes, expected: int) -> bytes:
    """The picture data, cut where the picture ends, without anything appended to it, compressed or not."""
    try:
        whole, behind = _unpacked(compressed, expected, lambda piece: None)
        if whole:
            return compressed[: len(compressed) - behind]
        packing, packed = zlib.compressobj(), bytearray()  # six times the work, but rarely needed
        _unpacked(compressed, expected, lambda piece: packed.extend(packing.compress(piece)))
    except zlib.error:
        raise _not_storable() from None
    return bytes(packed + packing.flush())


def _unpacked(compressed: bytes, expected: int, take: Callable[[bytes], None]) -> tuple[bool, int]:
    """Pass on this many bytes of the decompressed data, in pieces.

    Returns:
        Whether that is all of the decompressed data, and how many bytes follow the compressed stream.
    """
    unpacking, left, waiting = zlib.decompressobj(), expected, compressed
    while left and not unpacking.eof:
        piece = unpacking.decompress(waiting, min(left, _PIECE))
        if not piece and not unpacking.unconsumed_tail:
            break
        left, waiting = left - len(piece), unpacking.unconsumed_tail
        take(piece)
    rest = unpacking.decompress(waiting, 1)
    return not rest and unpacking.eof and not left, len(unpacking.unused_data)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _webp(data: bytes, orientation: int, profile: bytes | None) -> bytes:
    chunks: list[bytes] = []
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        body = data[place + 8 : place + 8 + length]
        if kind == b"VP8X":
            told = (0x20 if profile else 0) | (0x08 if orientation != 1 else 0)
            chunks.append(_webp_chunk(kind, bytes((body[0] & 0x10 | told,)) + body[1:10]))  # 10: opacity
            if profile:
                chunks.append(_webp_chunk(b"ICCP", profile))
        elif kind in _WEBP_KEPT:
            chunks.append(_webp_chunk(kind, body))
        place += 8 + length + length % 2
    if orientation != 1:
        chunks.append(_webp_chunk(b"EXIF", _exif(orientation)))
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

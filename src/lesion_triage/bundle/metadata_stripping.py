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

from lesion_triage.bundle.pixels import decode, orientation_and_profile
from lesion_triage.bundle.png import uncompressed_size_bytes
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.errors import ImageError

_KEPT_JPEG_MARKERS = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD})
"""Frames, tables, scans and restart intervals; no application segment and no comment."""
_END_OF_SCAN = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])")
"""FF 00 is data, FF D0 to FF D7 are restart markers, FF FF is fill."""
_KEPT_PNG_CHUNKS = {b"IHDR": 13, b"PLTE": 768, b"tRNS": 256}
"""Chunks kept beside the picture data, and how many bytes of each can be meaningful."""
_OUTPUT_PIECE_BYTES = 2**20
_KEPT_WEBP_CHUNKS = frozenset({b"ALPH", b"VP8 ", b"VP8L"})
_ICC_PIECE = 65_519
"""A JPEG segment holds 65,533 bytes; 14 of them identify it as a piece of a profile and number it."""


def strip_metadata(data: bytes, spec: PixelSpec) -> bytes:
    """The same photograph, with nothing in its file but what its pixels depend on.

    This is verified for each photograph: the result decodes to the same square, size and quantisation steps,
    so every gate and the network see the same as before.

    Raises:
        ImageError: as ``bundle.pixels.decode``; or ``image_not_storable``: the parts of the file cannot be
            separated, or its look depends on something that is not part of the picture.
    """
    before = decode(data, spec)
    orientation, profile = orientation_and_profile(data)
    try:
        if data.startswith(b"\xff\xd8"):
            kept = _rebuild_jpeg(data, orientation, profile)
        elif data.startswith(b"RIFF"):
            kept = _rebuild_webp(data, orientation, profile)
        else:
            kept = _rebuild_png(data, orientation, profile)
        after = decode(kept, spec)
    except (struct.error, IndexError, ImageError):
        raise _not_storable_error() from None
    same_size = (before.width_px, before.height_px) == (after.width_px, after.height_px)
    if (
        not np.array_equal(before.pixels, after.pixels)
        or not same_size
        or before.quantisation != after.quantisation
    ):
        raise _not_storable_error()
    return kept


def media_type(data: bytes) -> str:
    """Media type of a file that ``strip_metadata`` returned."""
    if data.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "image/webp" if data.startswith(b"RIFF") else "image/png"


def _not_storable_error() -> ImageError:
    return ImageError(
        "image_not_storable",
        "The metadata in the picture's file cannot be removed; save it again and send the new file.",
    )


def _orientation_exif(orientation: int) -> bytes:
    """A TIFF directory with one entry, tag 274."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def _rebuild_jpeg(data: bytes, orientation: int, profile: bytes | None) -> bytes:
    jfif = adobe = b""
    rest: list[bytes] = []
    for marker, segment in _parse_jpeg_segments(data):
        if marker == 0xE0 and segment.startswith(b"JFIF\0"):
            jfif = _encode_jpeg_segment(0xE0, segment[:12].ljust(12, b"\0") + b"\0\0")  # no preview
        elif marker == 0xEE and segment.startswith(b"Adobe"):
            adobe = _encode_jpeg_segment(0xEE, segment[:12])  # says whether colours are YCbCr
        elif marker is None:
            rest.append(segment)
        elif marker in _KEPT_JPEG_MARKERS:
            rest.append(_encode_jpeg_segment(marker, segment))
    head = [b"\xff\xd8", jfif]
    if orientation != 1:
        head.append(_encode_jpeg_segment(0xE1, b"Exif\0\0" + _orientation_exif(orientation)))
    pieces = (
        [profile[start : start + _ICC_PIECE] for start in range(0, len(profile), _ICC_PIECE)]
        if profile
        else []
    )
    for number, piece in enumerate(pieces, start=1):
        head.append(_encode_jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(pieces))) + piece))
    return b"".join((*head, adobe, *rest, b"\xff\xd9"))


def _encode_jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _parse_jpeg_segments(data: bytes) -> Iterator[tuple[int | None, bytes]]:
    """Marker and body of each segment up to the end marker; for scan data the marker is None."""
    offset = 2
    while offset < len(data):
        if data[offset] != 0xFF:
            raise _not_storable_error()
        while data[offset] == 0xFF:
            offset += 1
        marker = data[offset]
        offset += 1
        if marker == 0xD9:
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        (length,) = struct.unpack_from(">H", data, offset)
        if length < 2 or offset + length > len(data):
            raise _not_storable_error()
        yield marker, data[offset + 2 : offset + length]
        offset += length
        if marker == 0xDA:
            found = _END_OF_SCAN.search(data, offset)
            end = found.start() if found else len(data)
            yield None, data[offset:end]
            offset = end


def _rebuild_png(data: bytes, orientation: int, profile: bytes | None) -> bytes:
    kept, compressed, expected = [data[:8]], bytearray(), 0
    offset = 8
    while offset < len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        body = data[offset + 8 : end - 4]
        if kind == b"IDAT":
            compressed += body
        if kind in _KEPT_PNG_CHUNKS:
            kept.append(_png_chunk(kind, body[: _KEPT_PNG_CHUNKS[kind]]))
        if kind == b"IHDR":
            expected = uncompressed_size_bytes(body)
            if profile:
                kept.append(_png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)))
            if orientation != 1:
                kept.append(_png_chunk(b"eXIf", _orientation_exif(orientation)))
        if kind == b"IEND":
            break
        offset = end
    pixels = _png_chunk(b"IDAT", _trimmed_png_data(bytes(compressed), expected))
    return b"".join((*kept, pixels, _png_chunk(b"IEND", b"")))


def _trimmed_png_data(compressed: bytes, expected: int) -> bytes:
    """The picture data, cut where the picture ends, without anything appended to it, compressed or not."""
    try:
        is_complete, trailing_bytes = _inflate(compressed, expected, lambda piece: None)
        if is_complete:
            return compressed[: len(compressed) - trailing_bytes]
        compressor, recompressed = zlib.compressobj(), bytearray()  # six times the work, but rarely needed
        _inflate(compressed, expected, lambda piece: recompressed.extend(compressor.compress(piece)))
    except zlib.error:
        raise _not_storable_error() from None
    return bytes(recompressed + compressor.flush())


def _inflate(compressed: bytes, expected: int, consume: Callable[[bytes], None]) -> tuple[bool, int]:
    """Pass on this many bytes of the decompressed data, in pieces.

    Returns:
        Whether that is all of the decompressed data, and how many bytes follow the compressed stream.
    """
    decompressor, remaining, pending = zlib.decompressobj(), expected, compressed
    while remaining and not decompressor.eof:
        piece = decompressor.decompress(pending, min(remaining, _OUTPUT_PIECE_BYTES))
        if not piece and not decompressor.unconsumed_tail:
            break
        remaining, pending = remaining - len(piece), decompressor.unconsumed_tail
        consume(piece)
    rest = decompressor.decompress(pending, 1)
    return not rest and decompressor.eof and not remaining, len(decompressor.unused_data)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _rebuild_webp(data: bytes, orientation: int, profile: bytes | None) -> bytes:
    chunks: list[bytes] = []
    offset = 12
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, offset)
        body = data[offset + 8 : offset + 8 + length]
        if kind == b"VP8X":
            flags = (0x20 if profile else 0) | (0x08 if orientation != 1 else 0)
            chunks.append(_webp_chunk(kind, bytes((body[0] & 0x10 | flags,)) + body[1:10]))  # 10: opacity
            if profile:
                chunks.append(_webp_chunk(b"ICCP", profile))
        elif kind in _KEPT_WEBP_CHUNKS:
            chunks.append(_webp_chunk(kind, body))
        offset += 8 + length + length % 2
    if orientation != 1:
        chunks.append(_webp_chunk(b"EXIF", _orientation_exif(orientation)))
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

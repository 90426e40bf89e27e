"""What can be told of a PNG file without decoding it: how long its picture is, and whether it is incomplete.

Imports the standard library only.
"""

from __future__ import annotations

import struct
import zlib

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""For an interlaced picture: first column and row, and the steps to the next."""
_OUTPUT_PIECE_BYTES = 2**20


def uncompressed_size_bytes(header: bytes) -> int:
    """Bytes of the picture data before compression: one more for each row than its pixels take."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits = depth * _CHANNELS.get(colour, 0)
    size = 0
    for column, row, right, down in _ADAM7_PASSES if interlaced else ((0, 0, 1, 1),):
        across, rows = -(-(width - column) // right), -(-(height - row) // down)
        if across > 0 and rows > 0:
            size += rows * (1 + (across * bits + 7) // 8)
    return size


def is_truncated(data: bytes) -> bool:
    """Whether the compressed data hold less than the picture, although they end as they should."""
    decompressor, remaining, offset = zlib.decompressobj(), 0, 8
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        body = data[offset + 8 : offset + 8 + length]
        if kind == b"IHDR":
            remaining = uncompressed_size_bytes(body)
        pending = body if kind == b"IDAT" else b""
        while remaining and pending:
            remaining -= len(decompressor.decompress(pending, min(remaining, _OUTPUT_PIECE_BYTES)))
            pending = decompressor.unconsumed_tail
        if kind == b"IEND":
            break
        offset += length + 12
    return remaining > 0 and remaining > len(
        decompressor.flush()
    )  # at most the end of one repetition: 258 bytes

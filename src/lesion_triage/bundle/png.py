"""What can be told of a PNG file without decoding it: how long its picture is, and whether it is incomplete.

Imports the standard library only.
"""

from __future__ import annotations

import struct
import zlib

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""For an interlaced picture: first column and row, and the steps to the next."""
_PIECE = 2**20


def picture_bytes(header: bytes) -> int:
    """Bytes of the picture data before compression: one more for each row than its pixels take."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits = depth * _CHANNELS.get(colour, 0)
    size = 0
    for column, row, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        across, rows = -(-(width - column) // right), -(-(height - row) // down)
        if across > 0 and rows > 0:
            size += rows * (1 + (across * bits + 7) // 8)
    return size


def is_unfinished(data: bytes) -> bool:
    """Whether the compressed data hold less than the picture, although they end as they should."""
    unpacking, left, place = zlib.decompressobj(), 0, 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            left = picture_bytes(body)
        waiting = body if kind == b"IDAT" else b""
        while left and waiting:
            left -= len(unpacking.decompress(waiting, min(left, _PIECE)))
            waiting = unpacking.unconsumed_tail
        if kind == b"IEND":
            break
        place += length + 12
    return left > 0 and left > len(unpacking.flush())  # at most the end of one repetition: 258 bytes

"""EXIF orientation: how to read it, and how to set a picture upright. Imports Pillow."""

from __future__ import annotations

import struct

from PIL import Image

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that sets a picture upright, by EXIF orientation."""
_ORIENTATION, _SHORT, _LONG = 274, 3, 4


def exif_orientation(exif: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) if it is absent or unreadable.

    Only the first directory is read (TIFF 6.0, tag 274): of all EXIF data, nothing else affects how the
    picture looks. The value has two bytes; some programs write four.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for offset in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HHI", tiff, offset)[:2]
            if tag == _ORIENTATION:
                form = {_SHORT: "H", _LONG: "I"}.get(kind)
                (value,) = struct.unpack_from(f"{order}{form}", tiff, offset + 8) if form else (1,)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1

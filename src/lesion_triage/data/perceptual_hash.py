"""A picture's descriptor: 255 small numbers, comparable in any orientation: used to find copies.

Imports numpy only.

The numbers are the discrete cosine transform of a 16 x 16 grey thumbnail, each weighted by its frequency. So
a correlation of two such rows compares slopes of brightness rather than brightness, which two photographs of
different lesions on pale skin share. Mirroring a picture changes signs, and turning it on its side swaps rows
and columns, so all eight orientations come from one transform. The signs of the lowest frequencies are the
picture's hash, as in pHash (Zauner 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 32
"""Side to which the pixel path prepares pictures; the thumbnail is half of it."""

SYMMETRIES = 8
EXIF_ORIENTATIONS = (1, 2, 4, 3, 5, 6, 8, 7)
"""EXIF orientation that turns the first picture of a pair into the second, by symmetry."""

BANDS, BAND_BITS = 6, 14
"""Two pictures are compared if all bits of one band agree, except possibly the weakest. More bands find
more pairs; more bits are faster."""

HASH_BITS = 64

_THUMB = 16
_MIN_CONTRAST = 2.0
"""Standard deviation of the thumbnail, in grey levels, below which there is nothing to compare."""
_UNINFORMATIVE_FREQUENCIES = {(0, 2), (2, 0), (0, 4), (4, 0), (2, 2)}
"""A spot in the middle of skin determines these signs, so they do not distinguish lesions."""


def _dct() -> NDArray[np.float32]:
    """Orthonormal DCT-II as a matrix."""
    frequency, place = np.mgrid[:_THUMB, :_THUMB]
    rows = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _THUMB))
    matrix: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return matrix


_DCT = _dct()
_U, _V = (grid.ravel()[1:] for grid in np.mgrid[:_THUMB, :_THUMB])  # without the mean
_WEIGHT = np.hypot(_U, _V).astype(np.float32)
_TRANSPOSED = (_V * _THUMB + _U - 1).astype(np.intp)
_BY_FREQUENCY = np.array(
    [
        place
        for place in np.lexsort((_V, _U, _U**2 + _V**2)).tolist()
        if (int(_U[place]), int(_V[place])) not in _UNINFORMATIVE_FREQUENCIES
    ][: BANDS * BAND_BITS],
    dtype=np.intp,
)


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Descriptors of many pictures, one per row."""

    coefficients: NDArray[np.int8]
    """(pictures, 255); each row is scaled to its own largest."""
    digests: NDArray[np.uint64]
    """Equal if size and prepared pixels are equal."""
    low_contrast: NDArray[np.bool_]
    """Too little contrast to compare: a blank frame looks like every other."""

    def take(self, rows: NDArray[np.intp]) -> Descriptors:
        """The descriptors of these rows, in the order given."""
        return Descriptors(self.coefficients[rows], self.digests[rows], self.low_contrast[rows])


def empty_descriptors(pictures: int) -> Descriptors:
    """Empty descriptors for this many pictures, to be filled in."""
    return Descriptors(
        np.zeros((pictures, len(_WEIGHT)), np.int8), np.zeros(pictures, np.uint64), np.ones(pictures, bool)
    )


def coefficients(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int8], bool]:
    """The 255 numbers of one picture, and whether it is too flat to compare.

    Args:
        pixels: (32, 32, 3), RGB, as the pixel path prepares them.
    """
    grey = pixels @ np.array((0.299, 0.587, 0.114), np.float32)
    step = SIDE_PX // _THUMB
    thumb = grey.reshape(_THUMB, step, _THUMB, step).mean((1, 3))
    row = (_DCT @ thumb @ _DCT.T).ravel()[1:] * _WEIGHT
    largest = float(np.abs(row).max())
    if largest == 0:
        return np.zeros(len(row), np.int8), True
    return np.rint(row * (127 / largest)).astype(np.int8), float(thumb.std()) < _MIN_CONTRAST


def apply_symmetry(rows: NDArray[np.int8], symmetry: int) -> NDArray[np.int8]:
    """The numbers of the same pictures after rotation or mirroring; symmetry 0 to 7.

    Symmetries 4 and above transpose first; then bit 1 mirrors the rows and bit 0 the columns.
    """
    places, signs = _symmetry_transform(symmetry)
    return rows[:, places] * signs


def _symmetry_transform(symmetry: int) -> tuple[NDArray[np.intp], NDArray[np.int8]]:
    signs = np.ones(len(_U), np.int8)
    if symmetry & 2:
        signs *= (1 - 2 * (_U % 2)).astype(np.int8)
    if symmetry & 1:
        signs *= (1 - 2 * (_V % 2)).astype(np.int8)
    return (_TRANSPOSED if symmetry & 4 else np.arange(len(_U))), signs


def hashes(
    rows: NDArray[np.int8], symmetry: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint16], NDArray[np.uint16]]:
    """The 64-bit hash of each turned picture, its key in each band, and the nearest other key.

    Returns:
        Hashes (n,); keys (bands, n); keys with one bit flipped, that of the number closest to zero, which is
        the first to change when a picture is re-saved (bands, n).
    """
    places, signs = _symmetry_transform(symmetry)
    words = np.empty(len(rows), np.uint64)
    keys, near = np.empty((2, BANDS, len(rows)), np.uint16)
    powers = (1 << np.arange(BAND_BITS)).astype(np.float32)  # exact, and a matrix product is fast
    for start in range(0, len(rows), 65_536):
        block = slice(start, start + 65_536)
        low = np.take(rows[block], places[_BY_FREQUENCY], axis=1) * signs[_BY_FREQUENCY]
        packed = np.packbits(low[:, :HASH_BITS] > 0, axis=1, bitorder="little")
        words[block] = np.ascontiguousarray(packed).view("<u8")[:, 0]
        for band in range(BANDS):
            part = low[:, band::BANDS]
            key = ((part > 0).astype(np.float32) @ powers).astype(np.uint16)
            keys[band, block] = key
            near[band, block] = key ^ (1 << np.abs(part).argmin(axis=1)).astype(np.uint16)
    return words, keys, near


def correlation(
    one: NDArray[np.int8], other: NDArray[np.int8], symmetry: int, norms: tuple[NDArray[np.float32], ...]
) -> NDArray[np.float32]:
    """Cosine between rows of ``one``, turned, and rows of ``other``; ``norms`` are their lengths."""
    places, signs = _symmetry_transform(symmetry)
    # Integers: four times as fast as floats, and sums of 255 products fit in 32 bits.
    product = np.einsum("np,np->n", np.take(one, places, axis=1) * signs, other, dtype=np.int32)
    return np.asarray(product / (norms[0] * norms[1]), np.float32)

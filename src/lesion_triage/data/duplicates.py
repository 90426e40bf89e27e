"""Finding copies of one picture in a manifest: the same file, the same pixels, or the same look.

Imports records and the perceptual hash; numpy only.

Copies that were re-saved, reduced, rotated or mirrored are found, and most that were cropped slightly.
Two photographs of one lesion are not copies. docs/data-manifest.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesion_triage.data import perceptual_hash
from lesion_triage.data.perceptual_hash import BAND_BITS, BANDS, SYMMETRIES, Descriptors

MIN_CORRELATION = 0.96
"""On HAM10000, 999 of 1,000 copies that were re-saved, halved or rotated reach it; of 32 million pairs of
different lesions, only one reaches 0.95, and it is a true copy (experiments/LOG.md)."""

MAX_HAMMING_DISTANCE = 10
"""Of 64: cheaper than the correlation, and loose enough for every pair that correlates so highly."""

MAX_NEIGHBOURS = 4096
"""Of one picture in one band. Beyond it a hash is so common that comparing all pairs would be quadratic."""

Kind = Literal["file", "pixels", "near"]

_CANDIDATES_PER_CHUNK = 4_000_000
"""Most candidate pairs held in memory at once."""
_COMPARED_PER_CHUNK = 16_384


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures that were joined, by their positions in the records."""

    one: int
    other: int
    kind: Kind
    """file: equal bytes. pixels: equal size, and equal prepared pixels. near: the same look."""
    correlation: float
    orientation: int
    """EXIF orientation that turns the first into the second; 1: none."""


@dataclass(frozen=True)
class Duplicates:
    """Pairs that connect the pictures of each group: a chain or tree, not all pairs."""

    pairs: tuple[Pair, ...]
    low_contrast: NDArray[np.bool_]
    """Pictures of which only bytes and pixels were compared."""
    not_fully_compared: tuple[int, ...] = ()
    """Pictures with so common a look that not all their neighbours were compared."""


class _UnionFind:
    """Union-find: growing groups of pictures; each picture knows its group's label."""

    def __init__(self, size: int) -> None:
        self.label = np.arange(size)
        self._members: dict[int, list[int]] = {}

    def union(self, one: int, other: int) -> bool:
        """Merge two groups; True if they were separate."""
        kept, lost = sorted((int(self.label[one]), int(self.label[other])))
        if kept == lost:
            return False
        moved = self._members.pop(lost, [lost])
        home = self._members.setdefault(kept, [kept])
        if len(moved) > len(home):  # relabel the smaller group: n log n in all
            self.label[home] = lost
            self._members[lost] = moved + self._members.pop(kept)
        else:
            self.label[moved] = kept
            home += moved
        return True


def find_duplicates(sha256: Sequence[str], descriptors: Descriptors) -> Duplicates:
    """Compare every picture with every other by means of an index: time grows little faster than linearly.

    The result depends on the pictures and their order alone.

    Args:
        sha256: of each file.
        descriptors: in the same order.
    """
    union_find = _UnionFind(len(sha256))
    pairs = [
        *_exact_pairs(sha256, "file", union_find),
        *_exact_pairs(descriptors.digests.tolist(), "pixels", union_find),
    ]
    distinct = np.flatnonzero((union_find.label == np.arange(len(sha256))) & ~descriptors.low_contrast)
    not_fully_compared: set[int] = set()
    rows = np.ascontiguousarray(descriptors.coefficients[distinct])
    for one, other, symmetry, correlation in _near_pairs(rows, union_find, distinct, not_fully_compared):
        if union_find.union(one, other):
            pairs.append(Pair(one, other, "near", correlation, perceptual_hash.EXIF_ORIENTATIONS[symmetry]))
    return Duplicates(tuple(pairs), descriptors.low_contrast, tuple(sorted(not_fully_compared)))


def duplicate_groups(pairs: Sequence[Pair], size: int) -> list[list[int]]:
    """Positions of each group's pictures, in order; single pictures are in no group."""
    union_find = _UnionFind(size)
    for pair in pairs:
        union_find.union(pair.one, pair.other)
    groups: dict[int, list[int]] = {}
    for place in sorted({place for pair in pairs for place in (pair.one, pair.other)}):
        groups.setdefault(int(union_find.label[place]), []).append(place)
    return list(groups.values())


def _exact_pairs(names: Sequence[object], kind: Kind, union_find: _UnionFind) -> Iterator[Pair]:
    first: dict[object, int] = {}
    for place, name in enumerate(names):
        home = first.setdefault(name, place)
        if home != place and union_find.union(home, place):
            yield Pair(home, place, kind, 1.0, 1)


def _near_pairs(
    rows: NDArray[np.int8],
    union_find: _UnionFind,
    places: NDArray[np.intp],
    not_fully_compared: set[int],
) -> Iterator[tuple[int, int, int, float]]:
    """Pairs of the same look that are not joined yet: both positions, symmetry, correlation."""
    upright, keys, _ = perceptual_hash.hashes(rows, 0)
    norms = np.sqrt(np.einsum("np,np->n", rows, rows, dtype=np.float32))
    indices = [_Index(keys[band]) for band in range(BANDS)]
    for symmetry in range(SYMMETRIES):
        words, *asked = perceptual_hash.hashes(rows, symmetry)
        for (band, index), by in product(enumerate(indices), asked):
            for one, other in index.candidates(by[band], places, not_fully_compared):
                close = np.flatnonzero(np.bitwise_count(words[one] ^ upright[other]) <= MAX_HAMMING_DISTANCE)
                for start in range(0, len(close), _COMPARED_PER_CHUNK):
                    a, b = (side[close[start : start + _COMPARED_PER_CHUNK]] for side in (one, other))
                    apart = union_find.label[places[a]] != union_find.label[places[b]]
                    a, b = a[apart], b[apart]
                    found = perceptual_hash.correlation(rows[a], rows[b], symmetry, (norms[a], norms[b]))
                    for hit in np.flatnonzero(found >= MIN_CORRELATION).tolist():
                        yield int(places[a[hit]]), int(places[b[hit]]), symmetry, float(found[hit])


class _Index:
    """One band of all upright pictures, sorted by key and then by position."""

    def __init__(self, keys: NDArray[np.uint16]) -> None:
        self._size = len(keys)
        self._order = np.argsort(keys, kind="stable").astype(np.int32)
        self._sorted = keys[self._order].astype(np.int64) * self._size + self._order
        self._ends = np.cumsum(np.bincount(keys, minlength=1 << BAND_BITS))

    def candidates(
        self, keys: NDArray[np.uint16], places: NDArray[np.intp], not_fully_compared: set[int]
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Pairs (one, other), one before other, with equal keys; some millions at a time.

        The reverse pairs come with the inverse symmetry.
        """
        asking = np.argsort(keys, kind="stable").astype(np.int32)
        begin = np.searchsorted(self._sorted, keys[asking].astype(np.int64) * self._size + asking, "right")
        count = self._ends[keys[asking]] - begin
        if len(count) and count.max() > MAX_NEIGHBOURS:
            not_fully_compared.update(places[asking[count > MAX_NEIGHBOURS]].tolist())
            count = np.minimum(count, MAX_NEIGHBOURS)
        total = np.concatenate(([0], np.cumsum(count)))
        start = 0
        while start < len(asking):
            stop = max(
                start + 1, int(np.searchsorted(total, total[start] + _CANDIDATES_PER_CHUNK, "right")) - 1
            )
            part = slice(start, stop)
            shift = np.repeat(begin[part] - total[part], count[part])
            one = np.repeat(asking[part], count[part])
            yield one, self._order[shift + np.arange(total[start], total[stop])]
            start = stop

"""Columns of words and of numbers as codes, for tables of many rows. Imports numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.intp]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of words as integer codes."""

    codes: Codes
    levels: tuple[str, ...]
    """Word of each code; '' is unknown."""

    @classmethod
    def of(cls, values: Iterable[object]) -> Coded:
        """Number the words in order of first appearance; None becomes ''."""
        known: dict[object, int] = {}
        codes = np.fromiter((known.setdefault(value, len(known)) for value in values), np.intp)
        words = ["" if value is None else str(value) for value in known]
        if len(set(words)) < len(words):  # None and '' are the same word
            return cls.of(words[code] for code in codes)
        return cls(codes, tuple(words))

    def taken(self, rows: Codes) -> Coded:
        """A selection of its rows."""
        return Coded(self.codes[rows], self.levels)

    def missing(self) -> Bools:
        """Rows whose word is ''."""
        empty = np.array([word == "" for word in self.levels], dtype=np.bool_)
        return empty[self.codes]

    def merged(self, most: int) -> Coded:
        """Keep the ``most`` most common words; all others become one."""
        if len(self.levels) <= most:
            return self
        kept = np.argsort(-np.bincount(self.codes, minlength=len(self.levels)), kind="stable")[:most]
        renumbered = np.full(len(self.levels), most, dtype=np.intp)
        renumbered[kept] = np.arange(most)
        return Coded(renumbered[self.codes], (*(self.levels[code] for code in kept), "all others"))

    def filled(self) -> Coded:
        """Replace unknown by the most common known word."""
        gaps = self.missing()
        if not gaps.any() or gaps.all():
            return self
        commonest = int(np.bincount(self.codes[~gaps], minlength=len(self.levels)).argmax())
        return Coded(np.where(gaps, commonest, self.codes), self.levels)


def binned(values: NDArray[np.float64], bins: int = 10) -> Coded:
    """A numeric column binned by its quantiles; unknown is a level of its own."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if known.size else np.zeros(0)
    codes = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right") + 1, 0)
    return Coded(codes.astype(np.intp), ("", *(f"bin {number}" for number in range(edges.size + 1))))

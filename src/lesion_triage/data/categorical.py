"""Columns of words and of numbers as codes, for tables of many rows. Imports numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.intp]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Categorical:
    """A column of words as integer codes."""

    codes: Codes
    levels: tuple[str, ...]
    """Word of each code; '' is unknown."""

    @classmethod
    def from_values(cls, values: Iterable[object]) -> Categorical:
        """Number the words in order of first appearance; None becomes ''."""
        known: dict[object, int] = {}
        codes = np.fromiter((known.setdefault(value, len(known)) for value in values), np.intp)
        words = ["" if value is None else str(value) for value in known]
        if len(set(words)) < len(words):  # None and '' are the same word
            return cls.from_values(words[code] for code in codes)
        return cls(codes, tuple(words))

    def take(self, rows: Codes) -> Categorical:
        """A selection of its rows."""
        return Categorical(self.codes[rows], self.levels)

    def is_missing(self) -> Bools:
        """Rows whose word is ''."""
        empty = np.array([word == "" for word in self.levels], dtype=np.bool_)
        return empty[self.codes]

    def merge_rare(self, max_levels: int) -> Categorical:
        """Keep the ``max_levels`` most common words; all others become one."""
        if len(self.levels) <= max_levels:
            return self
        kept = np.argsort(-np.bincount(self.codes, minlength=len(self.levels)), kind="stable")[:max_levels]
        renumbered = np.full(len(self.levels), max_levels, dtype=np.intp)
        renumbered[kept] = np.arange(max_levels)
        return Categorical(renumbered[self.codes], (*(self.levels[code] for code in kept), "all others"))

    def fill_missing(self) -> Categorical:
        """Replace unknown by the most common known word."""
        gaps = self.is_missing()
        if not gaps.any() or gaps.all():
            return self
        commonest = int(np.bincount(self.codes[~gaps], minlength=len(self.levels)).argmax())
        return Categorical(np.where(gaps, commonest, self.codes), self.levels)


def quantile_bins(values: NDArray[np.float64], bins: int = 10) -> Categorical:
    """A numeric column binned by its quantiles; unknown is a level of its own."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if known.size else np.zeros(0)
    codes = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right") + 1, 0)
    return Categorical(codes.astype(np.intp), ("", *(f"bin {number}" for number in range(edges.size + 1))))

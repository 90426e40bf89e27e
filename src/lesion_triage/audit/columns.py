"""A manifest and its splits by columns, and the rows that represent their units. Imports data; numpy.

Everything here is one pass over the records or one sort: auditing 400,000 takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.data.categorical import Bools, Categorical, Codes
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import SPLITS, Splits

MODELLED = ("train", "validation")
"""Splits in which associations with the label may be examined; never in calibration and test."""


@dataclass(frozen=True)
class Columns:
    """Columns of a manifest; row i is record i."""

    records: Sequence[Record]
    positive: NDArray[np.int8]
    """1, 0, or -1 for unknown."""
    split: NDArray[np.int8]
    """Index into ``SPLITS``, or -1 for none."""
    unit: Codes
    case: Codes

    @classmethod
    def from_manifest(cls, manifest: Manifest, splits: Splits) -> Columns:
        """Read the columns that every check needs."""
        records = manifest.records
        label_codes = {True: 1, False: 0, None: -1}
        split_codes = {name: number for number, name in enumerate(SPLITS)}
        assigned = splits.assignment
        return cls(
            records=records,
            positive=np.fromiter((label_codes[r.needs_in_person] for r in records), np.int8, len(records)),
            split=np.fromiter(
                (split_codes[assigned[r.image_id]] if r.image_id in assigned else -1 for r in records),
                np.int8,
                len(records),
            ),
            unit=Categorical.from_values(r.unit_id for r in records).codes,
            case=Categorical.from_values(r.case_id for r in records).codes,
        )

    def categorical(self, name: str) -> Categorical:
        """One field of the records; all unknown if the records do not have it."""
        return Categorical.from_values(getattr(record, name, None) for record in self.records)

    def numeric(self, name: str) -> NDArray[np.float64]:
        """One numeric field of the records, NaN where unknown."""
        values = (getattr(record, name) for record in self.records)
        return np.fromiter((np.nan if v is None else v for v in values), np.float64, len(self.records))

    def is_modelled(self) -> Bools:
        """Labelled rows of the splits in which associations may be examined."""
        return np.isin(self.split, [SPLITS.index(name) for name in MODELLED]) & (self.positive >= 0)

    def representatives(self, seed: int) -> Codes:
        """One modelled row for each unit and label, drawn by ``seed``, in row order.

        Rows with one label then belong to different people (or lesions), so exact tests are valid. A unit
        with both labels has two rows. What these share makes the two labels more alike, which can only hide
        an association.
        """
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(self.is_modelled()))
        keys = self.unit[rows] * 2 + self.positive[rows]
        return np.sort(rows[np.unique(keys, return_index=True)[1]])

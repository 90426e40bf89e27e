"""Who is in a dataset: photographs and cases by group and by split. Imports data and the dossier."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from lesion_triage.cards.dossier import MANIFEST, SPLITS, TABLE, Dossier, Unknown
from lesion_triage.data import manifest, split
from lesion_triage.data.records import Record

UNKNOWN = "not stated"
_DECADE = 20


@dataclass(frozen=True, slots=True)
class Count:
    """Numbers of one group. A case is in the group if any of its photographs is."""

    photographs: int
    cases: int
    positives: int
    """Cases that need an in-person visit."""
    negatives: int
    """Cases that need none; one whose label is unknown is neither."""


GROUPS: Mapping[str, Callable[[Record], str]] = {
    "diagnosis": lambda one: one.diagnosis,
    "diagnosis_confirm_type": lambda one: one.diagnosis_confirm_type,
    "sex": lambda one: one.sex,
    "age_approx": lambda one: _age(one.age_approx),
    "anatom_site_general": lambda one: one.anatom_site_general,
    "fitzpatrick_skin_type": lambda one: one.fitzpatrick_skin_type,
    "image_type": lambda one: one.image_type,
    "source": lambda one: one.source,
    "copyright_license": lambda one: one.copyright_license,
}
"""Column of the manifest -> the group of a record."""


@dataclass(frozen=True)
class Population:
    """The records of a run, and the split of each."""

    records: tuple[Record, ...]
    splits: Mapping[str, tuple[Record, ...]]
    """By split; empty if the data have not been split."""

    @classmethod
    def of(cls, dossier: Dossier) -> Population:
        """Read the manifest and the splits of a run.

        Raises:
            Unknown: there is no manifest.
            ManifestError, SplitError: manifest or splits were altered.
        """
        dossier.at(MANIFEST, "sha256")
        dossier.at(TABLE)
        known, digest = manifest.read(dossier.folder)
        by_id = {one.image_id: one for one in known.records}
        by_split: dict[str, tuple[Record, ...]] = {}
        if dossier.get(SPLITS) is not None:
            splits, _ = split.read(dossier.folder, digest)
            by_split = {name: tuple(by_id[one] for one in splits.image_ids(name)) for name in split.SPLITS}
        return cls(known.records, by_split)

    @cached_property
    def total(self) -> Count:
        """Count of all records."""
        return count(self.records)

    def by(self, column: str) -> dict[str, Count]:
        """Count of each group, the largest first, ages in order; what is not stated comes last."""
        grouped: dict[str, list[Record]] = defaultdict(list)
        for one in self.records:
            grouped[GROUPS[column](one) or UNKNOWN].append(one)
        order = sorted(grouped, key=lambda name: (name == UNKNOWN, -len(grouped[name]), name))
        if column == "age_approx":
            order = sorted(grouped, key=lambda name: (name == UNKNOWN, name.zfill(7)))
        return {name: count(grouped[name]) for name in order}

    def stated(self, column: str) -> bool:
        """Whether the column is stated for any record."""
        return set(self.by(column)) != {UNKNOWN}

    def missing(self) -> dict[str, int]:
        """Number of photographs for which a column is not stated, by column."""
        return {column: sum(not group(one) for one in self.records) for column, group in GROUPS.items()}

    def duplicates(self) -> Counter[str]:
        """How many photographs are in each group of copies."""
        return Counter(one.duplicate_group for one in self.records if one.duplicate_group)


def count(records: Iterable[Record]) -> Count:
    """Photographs, cases and positive cases among some records."""
    listed = list(records)
    positive = {one.case_id for one in listed if one.needs_in_person}
    negative = {one.case_id for one in listed if one.needs_in_person is False} - positive
    return Count(len(listed), len({one.case_id for one in listed}), len(positive), len(negative))


def population_of(dossier: Dossier) -> Population:
    """The population of a run, read once.

    Raises:
        Unknown: there is none.
    """
    key = "population"
    if key not in dossier.facts:
        dossier.facts[key] = Population.of(dossier)
    found = dossier.facts[key]
    if not isinstance(found, Population):
        raise Unknown(key)
    return found


def _age(years: float | None) -> str:
    if years is None:
        return ""
    low = int(years) // _DECADE * _DECADE
    return f"{low}-{low + _DECADE - 1}"

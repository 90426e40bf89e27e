"""Assigns cases to train, validation, calibration and test so that nothing crosses.

Imports config, manifest, records and grouping.

Pictures are joined into groups by patient, by lesion, by the file's own hash and by being copies of one
picture; each group goes to one split whole. ``split.official`` keeps what the dataset itself calls validation
and test.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Split
from lesion_triage.data.grouping import connected_groups, group_keys
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record, place_of
from lesion_triage.errors import SplitError

SPLITS = ("train", "validation", "calibration", "test")
OFFICIAL = ("train", "validation", "test")
"""What a dataset itself may call a picture's split; if a group has several, the last of these wins."""
FILE = "splits.json"
_LARGEST_SHARE = 0.1
_FEWEST_NOTICED_CASES = 10


@dataclass(frozen=True)
class Splits:
    """Which picture is used for what."""

    manifest_sha256: str
    seed: int
    fractions: Mapping[str, float]
    assignment: Mapping[str, str]
    """Image id -> split. A picture without a label is in none."""
    left_out: int = 0
    """Pictures of the manifest whose ``needs_in_person`` is unknown."""

    def image_ids(self, split: str) -> tuple[str, ...]:
        """The pictures of one split, in order of image id."""
        if split not in SPLITS:
            raise SplitError(f"'{split}' is not a split; expected one of {', '.join(SPLITS)}.")
        return tuple(sorted(image_id for image_id, name in self.assignment.items() if name == split))

    def write(self, folder: Path) -> str:
        """Write ``splits.json``; returns its SHA-256."""
        content = self._content()
        content["seal"] = sha256_of(canonical_json(content).encode())
        data = canonical_json(content).encode()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, data)
        return sha256_of(data)

    def _content(self) -> dict[str, object]:
        return {
            "format": 1,
            "manifest_sha256": self.manifest_sha256,
            "seed": self.seed,
            "fractions": dict(self.fractions),
            "left_out": self.left_out,
            "image_ids": {split: list(self.image_ids(split)) for split in SPLITS},
        }


def read(folder: Path, manifest_sha256: str) -> tuple[Splits, str]:
    """Read the splits of one manifest; returns them with the file's SHA-256.

    Raises:
        SplitError: missing, altered since it was written, or made from another manifest.
    """
    path = folder / FILE
    try:
        data = path.read_bytes()
        content = json.loads(data)
        seal = content.pop("seal")
        content["image_ids"]  # a published file of splits has the same seal, but hashes in their place
        is_unaltered = seal == sha256_of(canonical_json(content).encode())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SplitError(f"{path}: no complete file of splits ({error}); split again.") from None
    if not is_unaltered or content.get("format") != 1:
        raise SplitError(f"{path}: altered since it was written; split again.")
    if content["manifest_sha256"] != manifest_sha256:
        raise SplitError(
            f"{path}: made from manifest {str(content['manifest_sha256'])[:12]}, expected "
            f"{manifest_sha256[:12]}; split this manifest again."
        )
    splits = Splits(
        manifest_sha256=manifest_sha256,
        seed=content["seed"],
        fractions=content["fractions"],
        assignment={image_id: split for split in SPLITS for image_id in content["image_ids"][split]},
        left_out=content["left_out"],
    )
    return splits, sha256_of(data)


def split(manifest: Manifest, manifest_sha256: str, config: Split) -> Splits:
    """Assign the groups of a manifest to splits, stratified by label, diagnosis and source.

    Groups are ordered by stratum and, within it, by a hash of seed and group. Each in turn goes to the
    split that is furthest behind its share. So every split gets its share of every stratum to within three
    groups, the order of the manifest's rows does not matter, and the same seed gives the same splits on
    every machine.

    With ``config.official``, groups that the dataset calls test or validation stay there, and the other
    splits are drawn from its training part by their fractions. A group that occurs in several of its parts
    goes whole to the last of them: test before validation before training.

    Raises:
        SplitError: too few groups for every split to get one; or ``official``, although a labelled picture
            states no official split or none is in an official validation or test split.
    """
    fractions = {name: float(getattr(config.fractions, name)) for name in SPLITS}
    # Unlabelled records take part in forming groups, but enter no split.
    labelled = (
        [r for r in group if r.needs_in_person is not None] for group in connected_groups(manifest.records)
    )
    groups_to_assign = list(filter(None, labelled))
    fixed: dict[str, list[list[Record]]] = {}
    if config.official:
        fixed = _official_groups(groups_to_assign)
        groups_to_assign = fixed.pop("train", [])
    assignment = {
        record.image_id: name for name, found in fixed.items() for group in found for record in group
    }
    open_splits = tuple(name for name in SPLITS if name not in fixed)
    open_fraction = sum(fractions[name] for name in open_splits)
    ordered = sorted(groups_to_assign, key=lambda group: _sort_key(group, config.seed))
    counts = dict.fromkeys(open_splits, 0)
    for assigned_count, group in enumerate(ordered, start=1):
        # index() finds the first maximum, so ties are broken by the order of SPLITS.
        shortfalls = [fractions[name] / open_fraction * assigned_count - counts[name] for name in open_splits]
        chosen = open_splits[shortfalls.index(max(shortfalls))]
        counts[chosen] += 1
        assignment.update((record.image_id, chosen) for record in group)
    empty = [name for name in open_splits if not counts[name]]
    if empty:
        raise SplitError(
            f"{len(ordered)} groups of labelled pictures leave nothing for {', '.join(empty)}; "
            "add cases or enlarge split.fractions there."
        )
    result = Splits(
        manifest_sha256=manifest_sha256,
        seed=config.seed,
        fractions=fractions,
        assignment=assignment,
        left_out=len(manifest.records) - len(assignment),
    )
    check_disjoint(manifest, result)
    return result


def _official_groups(joined: Sequence[list[Record]]) -> dict[str, list[list[Record]]]:
    """Groups by the last official split that any of their pictures states."""
    found: dict[str, list[list[Record]]] = {}
    for group in joined:
        stated = {record.official_split for record in group}
        if not stated <= set(OFFICIAL):
            without = next(record for record in group if record.official_split not in OFFICIAL)
            raise SplitError(
                f"{place_of(without)}: states no official split; drop split.official, or take a dataset "
                "that has train and test of its own."
            )
        found.setdefault(max(stated, key=OFFICIAL.index), []).append(group)
    if set(found) <= {"train"}:
        raise SplitError("the dataset names no official validation or test picture; drop split.official.")
    return found


def check_disjoint(manifest: Manifest, splits: Splits) -> None:
    """Check again, record by record, that no patient, lesion, file or group of copies is in two splits.

    Independent of how the splits were made.

    Raises:
        SplitError: names the first violation: what crosses, between which splits, by which pictures; also
            if a picture is not in the manifest, has a label but no split, or has a split but no label.
            Pictures are named without their ids.
    """
    records = {record.image_id: record for record in manifest.records}
    stray = splits.assignment.keys() - records.keys()
    if stray:
        raise SplitError(f"{len(stray)} pictures have a split but are not in the manifest; split again.")
    seen: dict[tuple[str, str], tuple[str, Record]] = {}
    for image_id, record in records.items():
        assigned = splits.assignment.get(image_id)
        if (assigned is None) != (record.needs_in_person is None):
            fault = "has a label but no split" if assigned is None else "has a split but no label"
            raise SplitError(f"{place_of(record)}: {fault}; split again.")
        if assigned is None:
            continue
        for key in group_keys(record):
            first, first_record = seen.setdefault(key, (assigned, record))
            if first != assigned:
                raise SplitError(
                    f"one {key[0]} is in '{first}' ({place_of(first_record)}) and in '{assigned}' "
                    f"({place_of(record)}); the splits leak, split again."
                )


@dataclass(frozen=True)
class OversizedGroup:
    """A group so large that the split which it is in cannot have the share of cases that was asked for."""

    cases: int
    of: int
    """Cases in all splits."""
    split: str
    kind: str
    """What most of its pictures share: patient, lesion, file or duplicate group."""


def find_oversized_group(manifest: Manifest, splits: Splits) -> OversizedGroup | None:
    """The largest group, if it has at least 10 cases and more than a tenth of all; otherwise None."""
    assigned = [record for record in manifest.records if record.image_id in splits.assignment]
    total = len({record.case_id for record in assigned})
    groups = connected_groups(manifest.records)  # a picture without a label may connect two with one
    members = [[record for record in group if record.image_id in splits.assignment] for group in groups]
    largest = max(members, key=lambda group: len({record.case_id for record in group}), default=[])
    cases = len({record.case_id for record in largest})
    if cases < _FEWEST_NOTICED_CASES or cases <= _LARGEST_SHARE * total:
        return None
    shared = Counter(key for record in largest for key in group_keys(record))
    (kind, _), _ = shared.most_common(1)[0]
    return OversizedGroup(cases, total, splits.assignment[largest[0].image_id], kind)


def require_both_classes(manifest: Manifest, splits: Splits) -> None:
    """Check that training and validation hold cases of both classes: a network learns nothing from one.

    Raises:
        SplitError: says which class is missing in which split, and how many cases there are in all.
    """
    cases: dict[str, dict[bool, set[str]]] = {name: {True: set(), False: set()} for name in SPLITS}
    for record in manifest.records:
        if record.image_id in splits.assignment and record.needs_in_person is not None:
            cases[splits.assignment[record.image_id]][record.needs_in_person].add(record.case_id)
    lacking = [
        f"'{name}' has no case {'that needs' if needs else 'without need of'} an in-person visit"
        for name in ("train", "validation")
        for needs in (True, False)
        if not cases[name][needs]
    ]
    if lacking:
        positive, negative = (sum(len(found[needs]) for found in cases.values()) for needs in (True, False))
        raise SplitError(
            f"expected cases of both classes to train and to validate with; {' and '.join(lacking)}; "
            f"of all {positive + negative} labelled cases {positive} need a visit and {negative} do not. Add "
            "cases of the class that is missing, or enlarge split.fractions there."
        )


def _sort_key(group: Sequence[Record], seed: int) -> tuple[tuple[bool, str, str], str]:
    stratum = min((record.needs_in_person is not True, record.diagnosis, record.source) for record in group)
    key = min(record.image_id for record in group)
    return stratum, hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
